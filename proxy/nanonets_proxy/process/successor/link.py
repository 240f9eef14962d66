"""The link between the gates of two processes, after the handover: JSON lines over their socket pair.

open   Messages pass both ways.
         `leave()` -> left
         the other process leaves or ends -> lost
left   Sends and receives no messages; the socket pair still shows the end of the other process.
         the other process ends -> lost
lost   `on_lost` has been called. The own end stays open until `close()`, so that a process that has left sees the
       end of this one.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from nanonets_proxy.process.successor.messages import Lines, as_line


class Link(asyncio.Protocol):
    """Keeps messages until `start()`. Calls `on_lost` once."""

    def __init__(self, receive: Callable[[str, Any], None], on_lost: Callable[[], None]) -> None:
        """`receive` takes the name of an environment and a message to its gate.

        `on_lost`: the other process has ended, or has left.
        """
        self._lines = Lines(lambda line: receive(line[0], line[1]))
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._kept: list[bytes] = []
        self._has_left = self._is_lost = False

    async def start(self, sock: socket.socket) -> None:
        """Begins to send and receive. The link owns the socket from now on."""
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)

    def send(self, environment: str, message: Any) -> None:
        """Sends a message to the gate of an environment."""
        if self._has_left or self._is_lost:
            return
        line = as_line([environment, message])
        if self._transport is not None:
            self._transport.write(line)
        else:
            self._kept.append(line)

    def leave(self) -> None:
        """Takes no further part in the decisions of the other process, and waits for its end."""
        self._has_left = True
        if self._transport is not None:
            self._transport.write_eof()

    def close(self) -> None:
        """Ends the link in order, without a call of `on_lost`."""
        self._is_lost = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.writelines(self._kept)
        self._kept.clear()

    def data_received(self, data: bytes) -> None:
        if not self._has_left:
            self._lines.feed(data)

    def eof_received(self) -> bool:
        self._lose()
        return True  # keeps the own direction open

    def connection_lost(self, _: BaseException | None) -> None:
        self._lose()
        self._transport = None

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_lost()
