"""One connection to Redis for messages: no task and no time limit for each command, as a library has them.

A request of a follower is three messages. Each command goes straight to the transport, and each reply straight to a
callback.
"""

import asyncio
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from nanonets_proxy.admission.fleet.bus.client import TIMEOUT_S, Server
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.net.resp import ErrorReply, Reply, ReplyReader, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ_S: Final = 0.01
"""If this process stood still, what it waits for may be here, unread. It is read within this time."""

_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Times in seconds, and probes. Firewalls forget connections that are idle for minutes. redis-py 8 has the same."""
_FULL: Final = "ERR max number of clients"
"""The response of a server with `maxclients` connections to the first command of a further one."""


class Refused(Exception):
    """Redis responded with an error."""


class Wire(asyncio.Protocol):
    """A connection. `on_reply` and `on_lost` may be changed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_reply: Callable[[Reply], None] = lambda _: None
        """Called with each reply. Its exceptions end the connection."""
        self.on_lost: Callable[[Exception], None] = lambda _: None
        """Called with the reason when the connection is lost, once; not after `close`."""
        self.heard_at_s = loop.time()
        """When Redis has sent something."""
        self._loop = loop
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # else the system has its own times
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def data_received(self, data: bytes) -> None:
        self.heard_at_s = self._loop.time()
        try:
            for reply in self._reader.feed(data):
                self.on_reply(reply)
        except Exception as error:  # noqa: BLE001 - the replies that follow cannot be told apart
            self._lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or ConnectionResetError("Redis has closed the connection"))

    def _lose(self, error: Exception) -> None:
        if self._transport is not None:
            self.close()
            self.on_lost(error)

    @property
    def is_closed(self) -> bool:
        """Whether the connection is lost or closed."""
        return self._transport is None

    def send(self, data: bytes) -> None:
        """Sends commands. Those of one turn of the event loop share a packet."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Closes the connection at once. Over TLS, a server that hangs would never close its end."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def do(self, commands: "Iterable[tuple[bytes, ...]]") -> None:
        """Runs commands, before `on_reply` gets any reply. Raises Refused, or the reason of a loss."""
        for command in commands:
            done: asyncio.Future[Reply | Exception] = self._loop.create_future()
            self.on_reply, self.on_lost = partial(_settle, done), partial(_settle, done)
            self.send(pack(*command))
            reply = await done
            if isinstance(reply, Exception):
                raise reply
            if isinstance(reply, ErrorReply):
                # The text of an unknown command repeats its words, such as the password.
                text = reply.text if reply.text.startswith(_FULL) else reply.text.partition(" ")[0]
                raise Refused(f"{command[0].decode()}: {text}")


def _settle(done: "asyncio.Future[Reply | Exception]", result: Reply | Exception) -> None:
    if not done.done():  # else its task is being cancelled
        done.set_result(result)


async def connect(address: RedisAddress, server: Server, tls: ssl.SSLContext | None) -> Wire:
    """Returns a connection with login and database. Raises OSError, Refused or TimeoutError."""
    loop = asyncio.get_running_loop()
    login = [address.user, address.password] if address.user else [address.password]
    commands = [("AUTH", *login)] if any(login) else []
    if address.database:
        commands.append(("SELECT", str(address.database)))
    async with asyncio.timeout(TIMEOUT_S):
        _, wire = await loop.create_connection(lambda: Wire(loop), *server, ssl=tls)
        try:
            await wire.do(tuple(word.encode() for word in command) for command in commands)
        except BaseException:
            wire.close()
            raise
    if wire.is_closed:
        raise ConnectionResetError("Redis has closed the connection")
    return wire
