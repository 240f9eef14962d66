"""Makes every call of the published client `nanonetsclient` against a base URL."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanonetsclient import NanonetsClient

CONTENT = b"%PDF-1.4 a document of the tests\n"


class _Recorder:
    """Forwards calls to the client, and records their names."""

    def __init__(self, client: NanonetsClient) -> None:
        self._client = client
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self.called.append(name)
        method: Callable[..., Any] = getattr(self._client.workflows, name)
        return method


def run_every_call(base_url: str, api_key: str, folder: Path) -> list[str]:
    """Makes every call, checks its result, and returns the names in order. `base_url` ends in `/api/v4`.

    The function blocks, as the client does, so run it in a thread beside an event loop.
    """
    path = folder / "invoice.pdf"
    path.write_bytes(CONTENT)
    calls = _Recorder(NanonetsClient(api_key, base_url))
    with warnings.catch_warnings():
        # The client leaves each uploaded file open until garbage collection.
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        workflow = _workflow_calls(calls)
        document = _document_calls(calls, workflow, path)
        _field_calls(calls, workflow, document)
        _table_calls(calls, workflow, document)
        _last_calls(calls, workflow, document)
    return calls.called


def _workflow_calls(calls: _Recorder) -> str:
    assert "invoice" in [kind["id"] for kind in calls.get_types()]
    created = calls.create("Invoices of the tests")
    workflow: str = created["id"]
    assert calls.create("Ready-made", workflow_type="invoice")["fields"]
    assert workflow in [known["id"] for known in calls.list()]
    assert calls.get(workflow) == created
    fields = [{"name": "invoice_number"}, {"name": "old_name"}, {"name": "unwanted"}]
    assert calls.set_fields(workflow, fields[:1])["fields"][0]["name"] == "invoice_number"
    with_table = calls.set_fields(workflow, fields, [{"name": "item"}, {"name": "price"}])
    assert [header["name"] for header in with_table["table_headers"]] == ["item", "price"]
    _, old, unwanted = with_table["fields"]
    assert calls.update_field(workflow, old["id"], "total_amount")["name"] == "total_amount"
    assert calls.delete_field(workflow, unwanted["id"])["id"] == unwanted["id"]
    assert calls.update_metadata(workflow, "Renamed")["description"] == "Renamed"
    assert calls.update_settings(workflow, table_capture=False)["settings"] == {"table_capture": False}
    assert calls.update_settings(workflow, table_capture=True)["settings"] == {"table_capture": True}
    return workflow


def _document_calls(calls: _Recorder, workflow: str, path: Path) -> dict[str, Any]:
    by_url = calls.upload_document(workflow, document_url="https://files.invalid/a.pdf", metadata={"a": 1})
    assert by_url["metadata"] == {"a": 1}
    later = calls.upload_document(workflow, file_path=str(path), async_mode=True, metadata={"a": 1})
    assert later["status"] == "pending"
    assert calls.upload_document(workflow, document_url="https://files.invalid/b.pdf", async_mode=True)[
        "document_id"
    ]
    for _ in range(100):
        seen = calls.get_document(workflow, later["document_id"])
        if seen["status"] == "success":
            break
    assert seen["status"] == "success"
    document: dict[str, Any] = calls.upload_document(workflow, file_path=str(path))
    name = document["document_id"]
    assert document["status"] == "success"
    assert document["size"] == len(CONTENT)
    assert calls.get_document(workflow, name)["pages"] == document["pages"]
    assert name in [known["document_id"] for known in calls.list_documents(workflow)]
    assert len(calls.list_documents(workflow, page=2, limit=1)) == 1
    assert set(calls.get_document_fields(workflow, name)["fields"]) == {"invoice_number", "total_amount"}
    assert len(calls.get_document_tables(workflow, name)["tables"]) == 1
    assert calls.get_document_original_file(workflow, name) == CONTENT
    page = document["pages"][0]
    assert calls.get_page_data(workflow, name, page["page_id"]) == page
    return document


def _field_calls(calls: _Recorder, workflow: str, document: dict[str, Any]) -> None:
    name, page = document["document_id"], document["pages"][0]["page_id"]
    field = document["pages"][0]["data"]["fields"]["invoice_number"][0]["field_data_id"]
    assert calls.update_field_value(workflow, name, page, field, "NO-1")["value"] == "NO-1"
    verified = calls.verify_field(workflow, name, page, field, "failed", "unreadable")
    assert verified["verification_message"] == "unreadable"
    added = calls.add_field_value(workflow, name, page, "note", "hello", [1, 2, 3, 4], 0.9, "success")
    assert added["field_name"] == "note"
    deleted = calls.delete_field_value(workflow, name, page, added["field_data_id"])
    assert deleted["field_data_id"] == added["field_data_id"]


def _table_calls(calls: _Recorder, workflow: str, document: dict[str, Any]) -> None:
    name, page = document["document_id"], document["pages"][0]["page_id"]
    cells = [{"row": 0, "col": 0, "header": "item", "text": "bolt", "bbox": [1, 2, 3, 4]}]
    table = calls.add_table(workflow, name, page, [0, 0, 9, 9], ["item"], "success", "", cells)
    at = (workflow, name, page, table["table_id"])
    cell = table["cells"][0]["cell_id"]
    assert calls.update_table_cell(*at, cell, "nut")["text"] == "nut"
    assert calls.verify_table_cell(*at, cell, "failed", "blurred")["verification_status"] == "failed"
    added = calls.add_table_cell(*at, 1, 0, "item", "washer", [1, 2, 3, 4], "success", "")
    assert calls.delete_table_cell(*at, added["cell_id"])["cell_id"] == added["cell_id"]
    assert calls.verify_table(*at, "failed", "cut off")["verification_message"] == "cut off"
    assert calls.delete_table(*at)["table_id"] == table["table_id"]


def _last_calls(calls: _Recorder, workflow: str, document: dict[str, Any]) -> None:
    name = document["document_id"]
    assert calls.verify_document(workflow, name, "failed", "by hand")["verification_message"] == "by hand"
    assert calls.delete_document(workflow, name)["document_id"] == name
    assert name not in [known["document_id"] for known in calls.list_documents(workflow)]
