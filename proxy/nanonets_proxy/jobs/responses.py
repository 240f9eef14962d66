"""Writes the responses about jobs, and responses that were stored."""

import json
import math
import os
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from nanonets_proxy.core.jobs.lifecycle import UNFINISHED
from nanonets_proxy.errors import InternalError, PathNotFound, ProxyError
from nanonets_proxy.jobs.records import Content, JobView, Result
from nanonets_proxy.request.response.relay import RelayedResponse
from nanonets_proxy.server.connection.caller_request import HTTP_1_1, CallerRequest
from nanonets_proxy.server.error_response import OwnResponse, error_response
from nanonets_proxy.server.peers import caller_gone

PREFIX: Final = "/_proxy/jobs/"
RESULT: Final = "/result"
_PIECE_BYTES: Final = 256 * 1024
_NO_LENGTH: Final = (204, 304)


def state_response(
    status: int, view: JobView, expected_s: float, request_id: str, fields: dict[str, str] | None = None
) -> OwnResponse:
    """Returns the state of a job as JSON. `expected_s`: until its response is expected; nan if that is unknown."""
    location = PREFIX + view.id
    document: dict[str, Any] = {
        "id": view.id,
        "state": view.state,
        "method": view.method,
        "target": view.target.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "created": _time(view.created_s),
        "changed": _time(view.changed_s),
        "location": location,
    }
    own = {"Server": "nanonets-proxy", "X-Request-Id": request_id, "Cache-Control": "no-store"}
    if view.status is not None:
        document |= {"status": view.status, "result": location + RESULT}
    if view.reason:
        document["reason"] = view.reason
    if view.state in UNFINISHED:
        document["expected_s"] = None if math.isnan(expected_s) else round(expected_s, 1)
        own["Retry-After"] = str(retry_after(expected_s))
    body = json.dumps(document).encode()
    own |= {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
    return OwnResponse(status, own | (fields or {}) | {"Date": formatdate(usegmt=True)}, body)


def result_of(error: ProxyError, request_id: str) -> Result:
    """Returns the response that a caller would get for an error."""
    own = error_response(error, request_id)
    lines = [f"HTTP/1.1 {own.status} {HTTPStatus(own.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in own.fields.items()]
    return Result(own.status, "\r\n".join([*lines, ""]).encode("latin-1"), Content(len(own.body), own.body))


def retry_after(expected_s: float) -> int:
    """Returns after how many seconds it makes sense to ask again."""
    return 1 if math.isnan(expected_s) else max(1, math.ceil(expected_s))


async def send_result(
    result: Result, file: Path, request: CallerRequest, response: RelayedResponse, *, keep_alive: bool
) -> None:
    """Sends a stored response: status, fields and body as the upstream, or the proxy, made them.

    Raises ConnectionError if the caller is lost, PathNotFound if the body was removed, as after `jobs_keep`, and
    InternalError if it cannot be read.
    """
    lines = result.head
    if result.status not in _NO_LENGTH and b"\r\ncontent-length:" not in lines.lower():
        lines += b"Content-Length: %d\r\n" % result.body.length  # it came without one
    if not keep_alive:
        lines += b"Connection: close\r\n"
    elif request.version < HTTP_1_1:
        lines += b"Connection: keep-alive\r\n"
    response.keep_alive = keep_alive
    transport = request.connection.transport
    if transport is None or transport.is_closing():
        raise caller_gone()
    if request.method == "HEAD":
        transport.write(lines + b"\r\n")
        return
    if result.body.data is not None:
        response.sent_bytes = result.body.length
        transport.write(lines + b"\r\n" + result.body.data)
        return
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise PathNotFound("The job's response was removed.") from None
    except OSError as error:
        raise InternalError("The stored response cannot be read.", reason=error.strerror or "disk") from None
    response.began = True
    try:
        transport.write(lines + b"\r\n")
        at, length = 0, result.body.length
        while at < length:
            if not (piece := os.pread(descriptor, min(_PIECE_BYTES, length - at), at)):
                raise ConnectionResetError("the stored response is too short")
            if transport.is_closing():
                raise caller_gone()
            transport.write(piece)
            at = response.sent_bytes = at + len(piece)
            await response.drain()
    except OSError as error:  # also ConnectionError: a short body must not look complete
        raise ConnectionResetError(str(error)) from error
    finally:
        os.close(descriptor)


def _time(since_1970_s: float) -> str:
    return datetime.fromtimestamp(since_1970_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
