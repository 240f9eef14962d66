"""Reads bodies: JSON, forms and uploads. Hashes each file while it arrives, without holding it whole.

The sandbox sends `100 Continue` when a handler first reads the body. A rejected request therefore gets its
response before the upload begins.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from nanonets_proxy.sandbox.responses import bad_request, from_http_exception, too_large
from nanonets_proxy.sandbox.state import DIGEST, SANDBOX
from nanonets_proxy.sandbox.store import MAX_ORIGINAL_BYTES

MAX_FILES = 20  # Nanonets' limit for one request
_MAX_PARTS = 100
_MAX_FIELD_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024
_FILE_PARTS = ("file", "files")


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file, or a file's URL as `name`; then `size_bytes` and `sha256` are None."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None
    content: bytes | None = None
    """The bytes of a file of at most `MAX_ORIGINAL_BYTES`."""

    @property
    def seed(self) -> str:
        """The seed of the fake results: a hash of the content, or of the URL."""
        return self.sha256 or hashlib.sha256(self.name.encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size_bytes, "sha256": self.sha256}


@dataclass(slots=True)
class Upload:
    """The files of an upload, and its other form fields (or JSON members)."""

    files: list[ReceivedFile] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    def is_async(self, request: web.Request) -> bool:
        """Returns whether the caller requests asynchronous processing, by form field, JSON member or query."""
        wanted = self.fields.get("async", request.query.get("async", "false"))
        return str(wanted).lower() == "true"


async def expect(request: web.Request) -> web.Response | None:
    """Leaves `100-continue` to the handler; rejects any other expectation with 417 (RFC 9110 §10.1.1)."""
    if request.version >= HttpVersion11 and request.headers["Expect"].lower() != "100-continue":
        return from_http_exception(web.HTTPExpectationFailed())
    return None


async def _send_continue(request: web.Request) -> None:
    limit_bytes = request.app[SANDBOX].policy.max_body_bytes
    if (request.content_length or 0) > limit_bytes:
        raise too_large(limit_bytes)
    # RFC 9110 §10.1.1: an HTTP/1.0 caller must not get a 100.
    if "Expect" in request.headers and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the 100 is not part of the response


async def _read_small(request: web.Request) -> bytes:
    await _send_continue(request)
    body = await request.read()  # the application's client_max_size bounds it
    request[DIGEST].add(body)
    return body


async def read_json(request: web.Request) -> dict[str, Any]:
    """Returns the body's JSON object; an empty body counts as an empty object."""
    return _json_object(await _read_small(request))


def _json_object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        members = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise bad_request("Invalid JSON", error="the body is not valid JSON") from exc
    if not isinstance(members, dict):
        raise bad_request("Invalid JSON", error="the body must be a JSON object")
    return members


async def read_upload(request: web.Request) -> Upload:
    """Reads an upload in any documented format. Raises a 400 without a file, and a 413 above the size limit."""
    if request.content_type == "multipart/form-data":
        received = await _read_multipart(request)
    elif request.content_type == "application/json":
        received = _from_json(_json_object(await _read_small(request)))
    elif request.content_type == "application/x-www-form-urlencoded":
        received = _from_form(await _read_small(request))
    else:
        raise bad_request("Unsupported content type", content_type=request.content_type)
    if not received.files:
        raise bad_request("No file", error="send a file, document_url or urls")
    if len(received.files) > MAX_FILES:
        raise bad_request("Too many files", limit=MAX_FILES)
    return received


def _from_json(members: dict[str, Any]) -> Upload:
    urls = members.get("urls", members.get("document_url", []))
    urls = [urls] if isinstance(urls, str) else urls
    if not isinstance(urls, list) or not all(isinstance(url, str) and url for url in urls):
        raise bad_request("Invalid URL", error="document_url must be a string, and urls a list of strings")
    return Upload([ReceivedFile(url) for url in urls], members)


def _from_form(body: bytes) -> Upload:
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return Upload(_by_url(pairs), dict(pairs))


def _by_url(pairs: Iterable[tuple[str, str]]) -> list[ReceivedFile]:
    return [ReceivedFile(value) for name, value in pairs if name in ("urls", "document_url") and value]


async def _read_multipart(request: web.Request) -> Upload:
    await _send_continue(request)
    limit_bytes = request.app[SANDBOX].policy.max_body_bytes
    received = Upload()
    pairs: list[tuple[str, str]] = []
    left_bytes = limit_bytes
    try:
        parts = await request.multipart()
        for _ in range(_MAX_PARTS):
            part = await parts.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader) or not part.name:
                raise bad_request("Invalid multipart body", error="each part must be a named form field")
            if part.name in _FILE_PARTS:
                file = await _hash_file(part, left_bytes, limit_bytes)
                received.files.append(file)
                left_bytes -= file.size_bytes or 0
                request[DIGEST].add(f"{part.name}={file.name}={file.sha256}")
            else:
                value = await _read_field(part)
                pairs.append((part.name, value))
                left_bytes -= len(value)
                request[DIGEST].add(f"{part.name}={value}")
        else:
            raise bad_request("Too many parts", limit=_MAX_PARTS)
    except (ValueError, HttpProcessingError) as exc:
        raise bad_request("Invalid multipart body") from exc
    received.files += _by_url(pairs)
    received.fields = dict(pairs)
    return received


async def _hash_file(part: BodyPartReader, left_bytes: int, limit_bytes: int) -> ReceivedFile:
    digest = hashlib.sha256()
    size_bytes = 0
    kept = bytearray()
    while not part.at_eof():
        chunk = await part.read_chunk(_CHUNK_BYTES)
        size_bytes += len(chunk)
        if size_bytes > left_bytes:
            raise too_large(limit_bytes)
        digest.update(chunk)
        if size_bytes <= MAX_ORIGINAL_BYTES:
            kept += chunk
        else:
            kept.clear()
    content = bytes(kept) if size_bytes <= MAX_ORIGINAL_BYTES else None
    return ReceivedFile(part.filename or "file", size_bytes, digest.hexdigest(), content)


async def _read_field(part: BodyPartReader) -> str:
    value = bytearray()
    while not part.at_eof():
        value += await part.read_chunk(_CHUNK_BYTES)
        if len(value) > _MAX_FIELD_BYTES:
            raise too_large(_MAX_FIELD_BYTES)
    return value.decode("utf-8", "replace")
