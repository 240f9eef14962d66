"""API v4: workflows and their documents."""

import json
import re
from typing import Any

from aiohttp import web

from nanonets_proxy.sandbox import fake_results
from nanonets_proxy.sandbox.responses import ApiError, bad_request, not_found
from nanonets_proxy.sandbox.state import SANDBOX, Operation, timestamp
from nanonets_proxy.sandbox.store import MAX_ORIGINAL_BYTES, Document, Json, Workflow
from nanonets_proxy.sandbox.uploads import ReceivedFile, Upload, read_json, read_upload

MAX_FIELDS, MAX_TABLE_HEADERS = 30, 20  # per workflow, as Nanonets documents
MAX_PAGE_SIZE = 100

_NAME = re.compile(r"[A-Za-z0-9_]+")
_TYPES = {
    "invoice": ("Invoices", fake_results.DEFAULT_FIELDS, fake_results.DEFAULT_TABLE_HEADERS),
    "receipt": ("Receipts", ("merchant_name", "receipt_date", "total_amount"), ("item", "price")),
    "passport": ("Passports", ("passport_number", "surname", "birth_date"), ()),
}


def workflow_of(request: web.Request) -> Workflow:
    """Returns the workflow in the path. Raises a 404 if there is none."""
    name = request.match_info["workflow"]
    workflow = request.app[SANDBOX].store.workflows.get(name)
    if workflow is None:
        raise not_found("Workflow", name)
    return workflow


def document_of(request: web.Request) -> Document:
    """Returns the document in the path. Raises a 404 if the workflow has no such document."""
    workflow = workflow_of(request)
    name = request.match_info["document"]
    document = request.app[SANDBOX].store.documents.get(name)
    if document is None or document.workflow_id != workflow.id:
        raise not_found("Document", name)
    return document


def page_of(document: Document, name: str) -> Json:
    """Returns a page of the document. Raises a 404 if there is none, or if the document is pending."""
    for page in document.pages if document.is_ready else ():
        if page["page_id"] == name:
            return page
    raise not_found("Page", name)


def text_of(members: Json, name: str, default: str | None = None) -> str:
    """Returns a string member. Raises a 400 for another type, or for a missing member without a default."""
    value = members.get(name, default)
    if not isinstance(value, str):
        raise bad_request(f"Invalid {name}", error=f"{name} must be a string")
    return value


async def list_types(request: web.Request) -> web.Response:  # noqa: ARG001 - every handler has this parameter
    types = [{"id": name, "name": title, "description": title} for name, (title, _, _) in _TYPES.items()]
    return web.json_response({"workflow_types": types})


async def list_workflows(request: web.Request) -> web.Response:
    workflows = request.app[SANDBOX].store.workflows.values()
    return web.json_response({"workflows": [workflow.to_json() for workflow in workflows]})


async def create_workflow(request: web.Request) -> web.Response:
    members = await read_json(request)
    store = request.app[SANDBOX].store
    workflow_type = text_of(members, "workflow_type", "")
    if workflow_type and workflow_type not in _TYPES:
        raise bad_request(
            "Unknown workflow_type", error=f"workflow_type must be one of {', '.join(_TYPES)}, or empty"
        )
    workflow = Workflow(store.new_id(), text_of(members, "description", ""), workflow_type, timestamp())
    if workflow_type:
        _, fields, headers = _TYPES[workflow_type]
        workflow.fields = [{"id": store.new_id(), "name": name} for name in fields]
        workflow.table_headers = [{"id": store.new_id(), "name": name} for name in headers]
    store.add_workflow(workflow)
    return web.json_response(workflow.to_json())


async def get_workflow(request: web.Request) -> web.Response:
    return web.json_response(workflow_of(request).to_json())


async def update_workflow(request: web.Request) -> web.Response:
    workflow = workflow_of(request)
    workflow.description = text_of(await read_json(request), "description")
    return web.json_response(workflow.to_json())


async def update_settings(request: web.Request) -> web.Response:
    workflow = workflow_of(request)
    table_capture = (await read_json(request)).get("table_capture")
    if not isinstance(table_capture, bool):
        raise bad_request("Invalid table_capture", error="table_capture must be true or false")
    workflow.table_capture = table_capture
    return web.json_response(workflow.to_json())


def _names(items: Any, what: str, limit: int) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise bad_request(f"Invalid {what}", error=f"{what} must be a list of objects with a name")
    names = [text_of(item, "name") for item in items]
    if len(names) > limit:
        raise bad_request(f"Too many {what}", limit=limit)
    if len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
        raise bad_request(
            f"Invalid {what}", error="names must be unique, and consist of letters, digits and underscores"
        )
    return names


async def set_fields(request: web.Request) -> web.Response:
    workflow = workflow_of(request)
    members = await read_json(request)
    fields = _names(members.get("fields"), "fields", MAX_FIELDS)
    headers = _names(members.get("table_headers", workflow.table_headers), "table_headers", MAX_TABLE_HEADERS)
    new_id = request.app[SANDBOX].store.new_id
    workflow.fields = [{"id": new_id(), "name": name} for name in fields]
    workflow.table_headers = [{"id": new_id(), "name": name} for name in headers]
    return web.json_response(workflow.to_json())


def _field_of(request: web.Request) -> tuple[list[Json], Json]:
    workflow, name = workflow_of(request), request.match_info["field"]
    for items in (workflow.fields, workflow.table_headers):
        for item in items:
            if item["id"] == name:
                return items, item
    raise not_found("Field", name)


async def update_field(request: web.Request) -> web.Response:
    items, item = _field_of(request)
    others = [other for other in items if other is not item]
    renamed = await read_json(request)
    *_, item["name"] = _names([*others, renamed], "fields", MAX_FIELDS)
    return web.json_response(item)


async def delete_field(request: web.Request) -> web.Response:
    items, item = _field_of(request)
    items.remove(item)
    return web.json_response({"message": "Field deleted", "id": item["id"]})


def _metadata(value: Any) -> Any:
    """Returns form metadata as parsed JSON, or as text if it is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _add_document(request: web.Request, workflow: Workflow, file: ReceivedFile, received: Upload) -> Document:
    sandbox = request.app[SANDBOX]
    document = Document(
        id=sandbox.store.new_id(),
        workflow_id=workflow.id,
        name=file.name,
        uploaded_at=timestamp(),
        metadata=_metadata(received.fields.get("metadata")),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        pages=[workflow.fake_page(file.seed)],
        pending_polls=sandbox.policy.pending_polls if received.is_async(request) else 0,
    )
    sandbox.store.add_document(document, file.content)
    return document


async def upload_documents(request: web.Request) -> web.Response:
    """Returns one document for one file, and a list for several files, which Nanonets does not document."""
    workflow = workflow_of(request)
    received = await read_upload(request)
    documents = []
    for file in received.files:
        document = _add_document(request, workflow, file, received).to_json()
        if received.is_async(request):
            document |= {"status": "pending", "pages": []}
        documents.append(document)
    files = [file.to_json() for file in received.files]
    body = documents[0] if len(documents) == 1 else {"documents": documents}
    return web.json_response({**body, "files": files})


def _number(request: web.Request, name: str, default: int, highest: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= highest):
        raise bad_request(f"Invalid {name}", error=f"{name} must be a number from 1 to {highest}")
    return int(text)


async def list_documents(request: web.Request) -> web.Response:
    workflow = workflow_of(request)
    page, limit = _number(request, "page", 1, 10**9), _number(request, "limit", 10, MAX_PAGE_SIZE)
    documents = [
        document
        for document in request.app[SANDBOX].store.documents.values()
        if document.workflow_id == workflow.id
    ]
    shown = [document.to_json() for document in documents[(page - 1) * limit : page * limit]]
    return web.json_response({"documents": shown, "page": page, "limit": limit, "total": len(documents)})


async def get_document(request: web.Request) -> web.Response:
    document = document_of(request)
    return web.json_response(document.poll() if request.method == "GET" else document.to_json())


async def delete_document(request: web.Request) -> web.Response:
    document = document_of(request)
    request.app[SANDBOX].store.remove_document(document.id)
    return web.json_response({"message": "Document deleted", "document_id": document.id})


async def get_fields(request: web.Request) -> web.Response:
    document = document_of(request).to_json()
    fields: dict[str, list[Json]] = {}
    for page in document["pages"]:
        for name, values in page["data"]["fields"].items():
            fields.setdefault(name, []).extend(values)
    return web.json_response(
        {"document_id": document["document_id"], "status": document["status"], "fields": fields}
    )


async def get_tables(request: web.Request) -> web.Response:
    document = document_of(request).to_json()
    tables = [table for page in document["pages"] for table in page["data"]["tables"]]
    return web.json_response(
        {"document_id": document["document_id"], "status": document["status"], "tables": tables}
    )


async def get_original(request: web.Request) -> web.Response:
    document = document_of(request)
    original = request.app[SANDBOX].store.original(document.id)
    if original is None:
        raise ApiError(
            404,
            "Original file not kept",
            error=f"the sandbox keeps only files of at most {MAX_ORIGINAL_BYTES} bytes, and drops the oldest",
        )
    return web.Response(body=original, headers={"X-Content-Type-Options": "nosniff"})


async def get_page(request: web.Request) -> web.Response:
    return web.json_response(page_of(document_of(request), request.match_info["page"]))


_WORKFLOWS = "/api/v4/workflows"
_WORKFLOW = _WORKFLOWS + "/{workflow}"
DOCUMENT = _WORKFLOW + "/documents/{document}"

OPERATIONS = (
    Operation("GET", _WORKFLOWS, list_workflows, "list the workflows"),
    Operation("POST", _WORKFLOWS, create_workflow, "create a workflow"),
    Operation("GET", "/api/v4/workflow_types", list_types, "list the workflow types"),
    Operation("GET", _WORKFLOW, get_workflow, "get a workflow"),
    Operation("PATCH", _WORKFLOW, update_workflow, "change a workflow's description"),
    Operation("PATCH", _WORKFLOW + "/settings", update_settings, "change a workflow's settings"),
    Operation("PUT", _WORKFLOW + "/fields", set_fields, "set a workflow's fields and table headers"),
    Operation("PATCH", _WORKFLOW + "/fields/{field}", update_field, "rename a field"),
    Operation("DELETE", _WORKFLOW + "/fields/{field}", delete_field, "delete a field"),
    Operation("GET", _WORKFLOW + "/documents", list_documents, "list a workflow's documents (?page=, ?limit=)"),
    Operation("POST", _WORKFLOW + "/documents", upload_documents, "upload a file, or send a document_url"),
    Operation("GET", DOCUMENT, get_document, "get a document: its state and results"),
    Operation("DELETE", DOCUMENT, delete_document, "delete a document"),
    Operation("GET", DOCUMENT + "/fields", get_fields, "get a document's fields"),
    Operation("GET", DOCUMENT + "/tables", get_tables, "get a document's tables"),
    Operation("GET", DOCUMENT + "/original", get_original, "get a document's file, if it is small"),
    Operation("GET", DOCUMENT + "/pages/{page}", get_page, "get a page"),
)
