"""The transport of an upstream connection: flow control in both directions, TLS facts, the socket's state."""

import asyncio
import os
import select
import ssl
from mmap import mmap
from typing import Final, cast

from nanonets_proxy.core.net.key_pins import public_key_digest

_READ_BYTES: Final = 256 * 1024
# A connection that is lost receives nothing more, and no socket's receive buffer is larger.
_MOST_LAST_READS: Final = 64


class UpstreamTransport(asyncio.BufferedProtocol):
    """Holds the asyncio transport until the connection is lost or aborted.

    `read_buffer` receives every read. All connections of a loop share it, since each parses its bytes before the
    loop reads again. Without such a buffer, asyncio allocates 256 KiB for each read over TLS.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, read_buffer: mmap) -> None:
        self._loop = loop
        self._read_memory = read_buffer
        self._read_view = memoryview(read_buffer)  # asyncio's TLS writes into slices of it
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._is_writing_paused = False
        self._is_reading_paused = False
        self._drain_waiter: asyncio.Future[None] | None = None
        self.is_upload = False
        """Whether the upstream may respond before the request is sent. Bytes in the socket after a failed write are
        then the response. Otherwise, they are older than the request."""

    @property
    def tls_version(self) -> str | None:
        """Such as `TLSv1.3`; None on a plain connection."""
        tls = self._tls()
        return None if tls is None else tls.version()

    def public_key_digest(self) -> bytes | None:
        """Returns the SHA-256 of the upstream's public key; None on a plain connection."""
        tls = self._tls()
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        return None if certificate is None else public_key_digest(certificate)

    def _tls(self) -> ssl.SSLObject | None:
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return cast("ssl.SSLObject | None", tls)

    def is_readable(self) -> bool:
        """Returns whether bytes or an end of file wait in the socket, or the connection is lost.

        This costs a system call. The pool asks only for a request that must not be sent twice.
        """
        if self._transport is None:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def write(self, data: bytes) -> None:
        """Sends `data`; discards it if the connection is lost."""
        if self._transport is not None:
            self._transport.write(data)

    def _pause_reading(self) -> None:
        if not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _abort(self) -> None:
        """Closes the connection at once and discards unsent bytes."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        wake(self._drain_waiter)

    # --- called by asyncio ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._read_view

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        wake(self._drain_waiter)


def wake(waiter: "asyncio.Future[None] | None") -> None:
    """Ends the wait for `waiter`, if anything waits for it."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class BeforeTls(asyncio.Protocol):
    """Holds a connection until TLS starts. A TLS server sends nothing before that (RFC 8446 §2)."""

    has_received = False

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        self.has_received = True


class TlsLastBytes(asyncio.BufferedProtocol):
    """Stands between a connection's socket and its TLS, and reads the last bytes when the connection is lost.

    asyncio closes the socket before it tells the connection. Here the socket is still open.
    """

    def __init__(self, connection: UpstreamTransport, below: asyncio.Transport, above: asyncio.Transport) -> None:
        """`below` carries the records of TLS, `above` their content."""
        self._connection = connection
        self._below = below
        self._above = above
        self._tls = tls = cast("asyncio.BufferedProtocol", below.get_protocol())
        # Not methods: each read would cost two more calls.
        self.get_buffer = tls.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = tls.buffer_updated  # type: ignore[method-assign]

    def eof_received(self) -> bool | None:
        return self._tls.eof_received()

    def pause_writing(self) -> None:
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        self._tls.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._connection.is_upload:
            self._above.resume_reading()
            read_last_bytes(self._below, self._tls)
        self._tls.connection_lost(exc)


def read_last_bytes(transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
    """Passes to `protocol` the bytes that are left in the socket of a lost connection; none above TLS.

    RFC 9112 §9.6: a server that responds early and closes makes our next write fail. asyncio then reports the
    error, and does not read the response. Only to be called in `connection_lost` of the socket's own transport:
    later, the descriptor may belong to another connection.
    """
    if transport.get_extra_info("ssl_object") is not None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    for _ in range(_MOST_LAST_READS):
        try:
            count = os.readv(descriptor, [protocol.get_buffer(_READ_BYTES)])
        except OSError:
            return
        if not count:
            return
        protocol.buffer_updated(count)
