"""API v4: corrects and verifies the fields, tables and cells of a document's page."""

from aiohttp import web

from nanonets_proxy.sandbox.api.v4 import DOCUMENT, document_of, page_of, text_of
from nanonets_proxy.sandbox.responses import bad_request, not_found
from nanonets_proxy.sandbox.state import SANDBOX, Operation
from nanonets_proxy.sandbox.store import Json
from nanonets_proxy.sandbox.uploads import read_json


def _data_of(request: web.Request) -> Json:
    data: Json = page_of(document_of(request), request.match_info["page"])["data"]
    return data


def _field_of(request: web.Request) -> tuple[str, list[Json], Json]:
    """Returns the field's name, all its values, and the value in the path."""
    field_data_id = request.match_info["field"]
    for name, values in _data_of(request)["fields"].items():
        for value in values:
            if value["field_data_id"] == field_data_id:
                return name, values, value
    raise not_found("Field", field_data_id)


def _table_of(request: web.Request) -> tuple[list[Json], Json]:
    tables: list[Json] = _data_of(request)["tables"]
    table_id = request.match_info["table"]
    for table in tables:
        if table["table_id"] == table_id:
            return tables, table
    raise not_found("Table", table_id)


def _cell_of(request: web.Request) -> tuple[list[Json], Json]:
    _, table = _table_of(request)
    cells: list[Json] = table["cells"]
    cell_id = request.match_info["cell"]
    for cell in cells:
        if cell["cell_id"] == cell_id:
            return cells, cell
    raise not_found("Cell", cell_id)


def _verification(members: Json, default: str | None = None) -> Json:
    return {
        "verification_status": text_of(members, "verification_status", default),
        "verification_message": text_of(members, "verification_message", ""),
    }


def _value(members: Json) -> Json:
    if "value" not in members:
        raise bad_request("Missing value", error="value is required")
    return {"value": members["value"]}


def _cell(request: web.Request, members: Json) -> Json:
    row, col = members.get("row"), members.get("col")
    if type(row) is not int or type(col) is not int or row < 0 or col < 0:
        raise bad_request("Invalid cell", error="row and col must be whole numbers of at least 0")
    return {
        "cell_id": request.app[SANDBOX].store.new_id(),
        "row": row,
        "col": col,
        "header": text_of(members, "header", ""),
        "text": text_of(members, "text", ""),
        "bbox": members.get("bbox", []),
        **_verification(members, "success"),
        "is_moderated": True,
    }


async def add_field(request: web.Request) -> web.Response:
    fields = _data_of(request)["fields"]
    members = await read_json(request)
    name = text_of(members, "field_name")
    value = {
        "field_data_id": request.app[SANDBOX].store.new_id(),
        **_value(members),
        "confidence": members.get("confidence", 1.0),
        "bbox": members.get("bbox", []),
        **_verification(members, "success"),
        "is_moderated": True,
    }
    fields.setdefault(name, []).append(value)
    return web.json_response({"field_name": name, **value})


async def update_field(request: web.Request) -> web.Response:
    name, _, value = _field_of(request)
    value |= {**_value(await read_json(request)), "is_moderated": True}
    return web.json_response({"field_name": name, **value})


async def delete_field(request: web.Request) -> web.Response:
    name, values, value = _field_of(request)
    values.remove(value)
    if not values:
        del _data_of(request)["fields"][name]
    return web.json_response({"message": "Field deleted", "field_data_id": value["field_data_id"]})


async def verify_field(request: web.Request) -> web.Response:
    name, _, value = _field_of(request)
    value |= _verification(await read_json(request))
    return web.json_response({"field_name": name, **value})


async def add_table(request: web.Request) -> web.Response:
    tables = _data_of(request)["tables"]
    members = await read_json(request)
    cells = members.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise bad_request("Invalid cells", error="cells must be a list of objects")
    table = {
        "table_id": request.app[SANDBOX].store.new_id(),
        "bbox": members.get("bbox", []),
        "headers": members.get("headers", []),
        "cells": [_cell(request, cell) for cell in cells],
        **_verification(members, "success"),
    }
    tables.append(table)
    return web.json_response(table)


async def delete_table(request: web.Request) -> web.Response:
    tables, table = _table_of(request)
    tables.remove(table)
    return web.json_response({"message": "Table deleted", "table_id": table["table_id"]})


async def verify_table(request: web.Request) -> web.Response:
    _, table = _table_of(request)
    table |= _verification(await read_json(request))
    return web.json_response(table)


async def add_cell(request: web.Request) -> web.Response:
    _, table = _table_of(request)
    cell = _cell(request, await read_json(request))
    table["cells"].append(cell)
    return web.json_response(cell)


async def update_cell(request: web.Request) -> web.Response:
    _, cell = _cell_of(request)
    cell |= {"text": _value(await read_json(request))["value"], "is_moderated": True}
    return web.json_response(cell)


async def delete_cell(request: web.Request) -> web.Response:
    cells, cell = _cell_of(request)
    cells.remove(cell)
    return web.json_response({"message": "Cell deleted", "cell_id": cell["cell_id"]})


async def verify_cell(request: web.Request) -> web.Response:
    _, cell = _cell_of(request)
    cell |= _verification(await read_json(request))
    return web.json_response(cell)


async def verify_document(request: web.Request) -> web.Response:
    document = document_of(request)
    verification = _verification(await read_json(request))
    document.verification_status = verification["verification_status"]
    document.verification_message = verification["verification_message"]
    return web.json_response(document.to_json())


_FIELDS = DOCUMENT + "/pages/{page}/fields"
_FIELD = _FIELDS + "/{field}"
_TABLES = DOCUMENT + "/pages/{page}/tables"
_TABLE = _TABLES + "/{table}"
_CELL = _TABLE + "/cells/{cell}"

OPERATIONS = (
    Operation("POST", DOCUMENT + "/verify", verify_document, "verify a document"),
    Operation("POST", _FIELDS, add_field, "add a field's value"),
    Operation("PATCH", _FIELD, update_field, "correct a field's value"),
    Operation("DELETE", _FIELD, delete_field, "delete a field's value"),
    Operation("POST", _FIELD + "/verify", verify_field, "verify a field's value"),
    Operation("POST", _TABLES, add_table, "add a table"),
    Operation("DELETE", _TABLE, delete_table, "delete a table"),
    Operation("POST", _TABLE + "/verify", verify_table, "verify a table"),
    Operation("POST", _TABLE + "/cells", add_cell, "add a cell"),
    Operation("PATCH", _CELL, update_cell, "correct a cell"),
    Operation("DELETE", _CELL, delete_cell, "delete a cell"),
    Operation("POST", _CELL + "/verify", verify_cell, "verify a cell"),
)
