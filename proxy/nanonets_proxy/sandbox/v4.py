"""API v4: workflows and their documents."""

import json
import re
from typing import Any

from aiohttp import web

from nanonets_proxy.sandbox import invent
from nanonets_proxy.sandbox.responses import Refusal, bad_request, not_found
from nanonets_proxy.sandbox.state import SANDBOX, Call, timestamp
from nanonets_proxy.sandbox.store import MAX_ORIGINAL_BYTES, Document, Json, Workflow
from nanonets_proxy.sandbox.uploads import Received, ReceivedFile, read_json, read_upload

MAX_FIELDS, MAX_TABLE_HEADERS = 30, 20  # per workflow, as the vendor documents
MAX_PAGE_SIZE = 100

_NAME = re.compile(r"[A-Za-z0-9_]+")
_TYPES = {
    "invoice": ("Invoices", invent.DEFAULT_FIELDS, invent.DEFAULT_TABLE_HEADERS),
    "receipt": ("Receipts", ("merchant_name", "receipt_date", "total_amount"), ("item", "price")),
    "passport": ("Passports", ("passport_number", "surname", "birth_date"), ()),
}


def workflow_of(request: web.Request) -> Workflow:
    """Return the workflow that the path names; 404 if there is none."""
    name = request.match_info["workflow"]
    workflow = request.app[SANDBOX].store.workflows.get(name)
    if workflow is None:
        raise not_found("Workflow", name)
    return workflow


def document_of(request: web.Request) -> Document:
    """Return the document that the path names; 404 if the workflow has none such."""
    workflow = workflow_of(request)
    name = request.match_info["document"]
    document = request.app[SANDBOX].store.documents.get(name)
    if document is None or document.workflow_id != workflow.id:
        raise not_found("Document", name)
    return document


def page_of(document: Document, name: str) -> Json:
    """Return a page of the document; 404 if there is none, or not yet."""
    for page in document.pages if document.is_done else ():
        if page["page_id"] == name:
            return page
    raise not_found("Page", name)


def text_of(members: Json, name: str, default: str | None = None) -> str:
    """Return a member that must be text; 400 if it is missing without a default, or anything else."""
    value = members.get(name, default)
    if not isinstance(value, str):
        raise bad_request(f"Invalid {name}", error=f"{name} must be text")
    return value


async def list_types(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler
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
        raise bad_request("Unknown workflow_type", error=f"one of {', '.join(_TYPES)}, or empty")
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
        raise bad_request(f"Invalid {what}", error="names are unique, of letters, digits and underscores")
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
    """Return form metadata as the object that its JSON says, or as the text that it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _add_document(request: web.Request, workflow: Workflow, file: ReceivedFile, received: Received) -> Document:
    sandbox = request.app[SANDBOX]
    document = Document(
        id=sandbox.store.new_id(),
        workflow_id=workflow.id,
        name=file.name,
        uploaded_at=timestamp(),
        metadata=_metadata(received.fields.get("metadata")),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        pages=[workflow.invent_page(file.seed)],
        pending_polls=sandbox.policy.pending_polls if received.is_async(request) else 0,
    )
    sandbox.store.add_document(document, file.content)
    return document


async def upload_documents(request: web.Request) -> web.Response:
    """One file gives one document; several, which the vendor does not document, a list of them."""
    workflow = workflow_of(request)
    received = await read_upload(request)
    documents = []
    for file in received.files:
        document = _add_document(request, workflow, file, received).to_json()
        if received.is_async(request):
            document |= {"status": "pending", "pages": []}
        documents.append(document)
    files = [file.to_json() for file in received.files]
    answer = documents[0] if len(documents) == 1 else {"documents": documents}
    return web.json_response({**answer, "files": files})


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
    seen = document_of(request).to_json()
    fields: dict[str, list[Json]] = {}
    for page in seen["pages"]:
        for name, values in page["data"]["fields"].items():
            fields.setdefault(name, []).extend(values)
    return web.json_response({"document_id": seen["document_id"], "status": seen["status"], "fields": fields})


async def get_tables(request: web.Request) -> web.Response:
    seen = document_of(request).to_json()
    tables = [table for page in seen["pages"] for table in page["data"]["tables"]]
    return web.json_response({"document_id": seen["document_id"], "status": seen["status"], "tables": tables})


async def get_original(request: web.Request) -> web.Response:
    document = document_of(request)
    original = request.app[SANDBOX].store.original(document.id)
    if original is None:
        raise Refusal(
            404,
            "Original file not kept",
            error=f"only files of at most {MAX_ORIGINAL_BYTES} bytes are, for a while",
        )
    return web.Response(body=original, headers={"X-Content-Type-Options": "nosniff"})


async def get_page(request: web.Request) -> web.Response:
    return web.json_response(page_of(document_of(request), request.match_info["page"]))


_WORKFLOWS = "/api/v4/workflows"
_WORKFLOW = _WORKFLOWS + "/{workflow}"
DOCUMENT = _WORKFLOW + "/documents/{document}"

CALLS = (
    Call("GET", _WORKFLOWS, list_workflows, "list the workflows"),
    Call("POST", _WORKFLOWS, create_workflow, "create a workflow"),
    Call("GET", "/api/v4/workflow_types", list_types, "list the types of workflows"),
    Call("GET", _WORKFLOW, get_workflow, "one workflow"),
    Call("PATCH", _WORKFLOW, update_workflow, "change its description"),
    Call("PATCH", _WORKFLOW + "/settings", update_settings, "change its settings"),
    Call("PUT", _WORKFLOW + "/fields", set_fields, "set its fields and table headers"),
    Call("PATCH", _WORKFLOW + "/fields/{field}", update_field, "rename a field"),
    Call("DELETE", _WORKFLOW + "/fields/{field}", delete_field, "delete a field"),
    Call("GET", _WORKFLOW + "/documents", list_documents, "list its documents (?page=, ?limit=)"),
    Call("POST", _WORKFLOW + "/documents", upload_documents, "upload a file, or give a document_url"),
    Call("GET", DOCUMENT, get_document, "a document: its state and results"),
    Call("DELETE", DOCUMENT, delete_document, "delete a document"),
    Call("GET", DOCUMENT + "/fields", get_fields, "its fields"),
    Call("GET", DOCUMENT + "/tables", get_tables, "its tables"),
    Call("GET", DOCUMENT + "/original", get_original, "its file, if small"),
    Call("GET", DOCUMENT + "/pages/{page}", get_page, "one page"),
)
