"""The listening sockets of one setting, and the servers that accept connections on them.

A pause closes neither the sockets nor their queues: connections wait there for this process or for its successor.
The end accepts what waits in the queues: closing a socket resets the connections in its queue.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from nanonets_proxy.core.net.addresses import Listener
from nanonets_proxy.server.inherited import InheritedSockets
from nanonets_proxy.server.listeners import (
    BACKLOG,
    close_sockets,
    describe,
    duplicate,
    open_sockets,
    own_files,
    remove_file,
)
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.server.tls import ListenerTls


class Listening:
    """Call `open`, then either `serve` and `close`, or `abandon`."""

    def __init__(self, setting: str, listeners: Sequence[Listener]) -> None:
        """Takes the name of the setting, for messages."""
        self._setting = setting
        self._listeners = listeners
        self.sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._served: tuple[CallerServer, ListenerTls | None] | None = None
        self.addresses: list[str] = []
        """The addresses of the opened sockets, as callers write them."""

    def open(self, inherited: InheritedSockets | None = None) -> None:
        """Opens all sockets, or uses the inherited ones.

        Raises ListenFailed if an address is busy; then no socket stays open.
        """
        self.sockets = open_sockets(self._setting, self._listeners, inherited)
        self.addresses = [describe(sock) for sock in self.sockets]

    def abandon(self) -> None:
        """Closes opened sockets that are not served."""
        close_sockets(self.sockets)

    async def serve(self, server: CallerServer, tls: ListenerTls | None = None) -> None:
        """Begins to accept connections: on TCP over TLS if it is given, on unix sockets in plain text."""
        self._served = server, tls
        own_files(self.sockets)
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            factory = self._factory(sock)
            if sock.family is socket.AF_UNIX:
                # From Python 3.13 on, the end of a server would remove the file, which a successor may serve.
                opened = await loop.create_unix_server(  # type: ignore[call-arg]  # uvloop has it with each Python
                    factory, sock=sock, backlog=BACKLOG, cleanup_socket=False
                )
            else:
                opened = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
            self._servers.append(opened)

    def _factory(self, sock: socket.socket) -> "Callable[[], asyncio.BaseProtocol]":
        assert self._served is not None
        server, tls = self._served
        return server if tls is None or sock.family is socket.AF_UNIX else server.over_tls(tls)

    @property
    def server(self) -> CallerServer:
        """The server of the connections, once `serve` was called."""
        assert self._served is not None
        return self._served[0]

    def pause(self) -> None:
        """Accepts no more connections, until `resume()`, or for ever if `let_go()` follows."""
        self.sockets = [duplicate(sock) for sock in self.sockets]
        self._stop_accepting()

    async def resume(self) -> None:
        """Accepts connections again."""
        assert self._served is not None
        await self.serve(*self._served)

    def let_go(self) -> None:
        """Closes this process's descriptors of paused sockets: a successor serves them."""
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            sock.close()

    async def close(self) -> None:
        """Accepts the connections that have arrived and no further ones, and removes the files of unix sockets."""
        for sock in self.sockets:
            remove_file(sock)
        self.pause()
        for sock in self.sockets:
            await self._accept_queue(sock)
        self.let_go()

    async def _accept_queue(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the name says what it is
        for _ in range(BACKLOG):
            try:
                connection, _ = sock.accept()
            except BlockingIOError:  # the queue is empty
                return
            except OSError:  # this caller has gone, or no file is left
                continue
            await self.server.adopt(connection, self._factory(sock))

    def _stop_accepting(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
