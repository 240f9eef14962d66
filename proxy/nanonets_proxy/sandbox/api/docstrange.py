"""The DocStrange API: extraction of a document's content, at once or as a job whose result is polled.

Paths and members are those that the published clients `docstrange` and `docstrange-api` use. The content is fake.
"""

from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from nanonets_proxy.sandbox.responses import bad_request
from nanonets_proxy.sandbox.state import SANDBOX, Operation
from nanonets_proxy.sandbox.uploads import ReceivedFile, Upload, read_upload

_FORMATS: Final = ("markdown", "html", "json", "csv")


@dataclass(slots=True)
class Extraction:
    """One extraction. It is `processing` for that many polls."""

    record_id: str
    file: ReceivedFile
    formats: tuple[str, ...]
    polls_left: int

    def poll(self) -> dict[str, Any]:
        """Returns the state for a GET, which counts as a poll."""
        self.polls_left -= 1
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        is_done = self.polls_left < 0
        return {
            "success": True,
            "message": "Extraction completed" if is_done else "Extraction is being processed",
            "record_id": self.record_id,
            "status": "completed" if is_done else "processing",
            "filename": self.file.name,
            "file_size": self.file.size_bytes,
            "output_format": ",".join(self.formats),
            "pages_processed": 1 if is_done else None,
            "result": {name: {"content": _content(self.file, name)} for name in self.formats} if is_done else None,
        }


def _content(file: ReceivedFile, output: str) -> str:
    match output:
        case "html":
            return f"<h1>{file.name}</h1>"
        case "json" | "flat-json":
            return f'{{"file": "{file.seed[:8]}"}}'
        case "csv":
            return f"file\n{file.seed[:8]}"
        case _:
            return f"# {file.seed[:8]}"


async def extract_simple(request: web.Request) -> web.Response:
    received = await read_upload(request)
    output = str(received.fields.get("output_type", "markdown"))
    return web.json_response({"content": _content(received.files[0], output)})


def _new(request: web.Request, received: Upload, polls: int) -> Extraction:
    names = str(received.fields.get("output_format", "markdown")).split(",")
    formats = tuple(name.strip() for name in names)
    if unknown := [name for name in formats if name not in _FORMATS]:
        raise bad_request("Unknown output_format", output_format=unknown[0])
    sandbox = request.app[SANDBOX]
    extraction = Extraction(sandbox.store.new_id(), received.files[0], formats, polls)
    sandbox.store.add_extraction(extraction)
    return extraction


async def extract_sync(request: web.Request) -> web.Response:
    return web.json_response(_new(request, await read_upload(request), -1).to_json())


async def extract_async(request: web.Request) -> web.Response:
    received = await read_upload(request)
    return web.json_response(_new(request, received, request.app[SANDBOX].policy.pending_polls).to_json())


async def list_results(request: web.Request) -> web.Response:
    results = [extraction.to_json() for extraction in request.app[SANDBOX].store.extractions.values()]
    pagination = {"page": 1, "page_size": len(results), "total_count": len(results), "has_next": False}
    return web.json_response({"success": True, "results": results, "pagination": pagination})


async def get_result(request: web.Request) -> web.Response:
    extraction = request.app[SANDBOX].store.extractions.get(request.match_info["record"])
    if extraction is None:
        return web.json_response({"detail": "Record not found"}, status=404)
    return web.json_response(extraction.poll() if request.method == "GET" else extraction.to_json())


OPERATIONS: Final = (
    Operation("POST", "/extract", extract_simple, "DocStrange: extract a document at once"),
    Operation("POST", "/api/v1/extract/sync", extract_sync, "DocStrange: extract a document at once"),
    Operation("POST", "/api/v1/extract/async", extract_async, "DocStrange: begin to extract a document"),
    Operation("GET", "/api/v1/extract/results", list_results, "DocStrange: list the extractions"),
    Operation("GET", "/api/v1/extract/results/{record}", get_result, "DocStrange: get an extraction"),
)
