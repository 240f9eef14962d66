"""A caller made of a raw socket: it sends given bytes, and reads responses strictly by their framing."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any, Self, cast

from support.eventually import WAIT_S
from support.raw_upstream import reset


@dataclass(frozen=True)
class RawResponse:
    """One response. `fields` are in wire order; `trailers` are raw lines."""

    head: bytes
    body: bytes
    trailers: bytes = b""

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def status_line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        pairs = (line.split(b": ", 1) for line in self.head[:-4].split(b"\r\n")[1:])
        return [(name, value) for name, value in pairs]

    def values(self, name: bytes) -> list[bytes]:
        """Returns the values of all fields with this name."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def value(self, name: bytes) -> bytes:
        (value,) = self.values(name)
        return value

    def json(self) -> Any:
        return json.loads(self.body)


class RawCaller:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: str, tls: ssl.SSLContext | None = None) -> Self:
        """Connects to host:port, [v6]:port or unix:/path. With `tls`, the server's name is `localhost`."""
        if address.startswith("unix:"):
            return cls(*await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=2**20))
        host, _, port = address.rpartition(":")
        name = None if tls is None else "localhost"
        return cls(
            *await asyncio.open_connection(host.strip("[]"), int(port), limit=2**20, ssl=tls, server_hostname=name)
        )

    @property
    def transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self.writer.transport)  # a stream has no other kind

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.abort()

    async def send(self, data: bytes) -> None:
        """Sends bytes. Raises ConnectionError if the connection has ended."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError  # uvloop would raise RuntimeError
        self.writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    async def get(self, path: bytes, *lines: bytes) -> RawResponse:
        """Sends a GET and returns its response."""
        await self.send(request(b"GET", path, *lines))
        return await self.response()

    async def post(self, path: bytes, body: bytes, *lines: bytes) -> RawResponse:
        await self.send(request(b"POST", path, *lines, body=body))
        return await self.response()

    async def head(self) -> bytes:
        """Reads the next head, including that of a 1xx."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def response(self, *, to_head: bool = False) -> RawResponse:
        """Reads the next response whole. Fails for a 1xx and for broken framing."""
        head = await self.head()
        response = RawResponse(head, b"")
        assert response.status >= 200, head
        async with asyncio.timeout(WAIT_S):
            if to_head or response.status in (204, 304):
                return response
            if lengths := response.values(b"content-length"):
                (length,) = lengths
                assert not response.values(b"transfer-encoding"), head
                return RawResponse(head, await self._reader.readexactly(int(length)))
            if response.values(b"transfer-encoding"):
                assert response.values(b"transfer-encoding") == [b"chunked"], head
                return RawResponse(head, *await self._chunked())
            return RawResponse(head, await self._reader.read())

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readexactly(count)

    async def read_to_end(self) -> bytes:
        """Reads until the proxy closes the connection. Raises ConnectionError if the proxy resets it."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.read()

    def reset(self) -> None:
        reset(self.writer)

    def close(self) -> None:
        self.writer.close()

    async def _chunked(self) -> tuple[bytes, bytes]:
        body = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body.append(await self._reader.readexactly(size))
            assert await self._reader.readexactly(2) == b"\r\n"
        trailers = b""
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        return b"".join(body), trailers


def request(
    method: bytes, target: bytes, *lines: bytes, body: bytes | None = None, version: bytes = b"HTTP/1.1"
) -> bytes:
    """Returns a request: `Host: localhost`, then `lines`, then Content-Length if there is a body."""
    head = [b"%b %b %b" % (method, target, version), b"Host: localhost", *lines]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", body or b""])


def chunked(*pieces: bytes) -> bytes:
    """Returns a chunked body of these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
