"""The link between the gates of two processes, after the handover: JSON lines over their socket pair."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from nanonets_proxy.process.messages import Lines, as_line


class Link(asyncio.Protocol):
    """Keeps messages until `start()`. Calls `on_lost` once, when the other process has ended."""

    def __init__(self, receive: Callable[[str, Any], None], on_lost: Callable[[], None]) -> None:
        """`receive` takes the name of an environment and a message to its gate."""
        self._lines = Lines(lambda line: receive(line[0], line[1]))
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._kept: list[bytes] = []
        self._is_lost = False

    async def start(self, sock: socket.socket) -> None:
        """Begins to send and receive. The link owns the socket from now on."""
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)

    def send(self, environment: str, message: Any) -> None:
        """Sends a message to the gate of an environment."""
        line = as_line([environment, message])
        if self._transport is not None:
            self._transport.write(line)
        elif not self._is_lost:
            self._kept.append(line)

    def close(self) -> None:
        """Ends the link in order."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.writelines(self._kept)
        self._kept.clear()

    def data_received(self, data: bytes) -> None:
        self._lines.feed(data)

    def connection_lost(self, _: BaseException | None) -> None:
        self._transport, self._is_lost = None, True
        self._on_lost()
