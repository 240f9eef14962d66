"""The listening sockets of one setting, and the servers that accept connections on them.

A pause closes neither the sockets nor their queues: connections wait there for this process or for its successor.
"""

import asyncio
import socket
from collections.abc import Sequence

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
            if sock.family is socket.AF_UNIX:
                serving = await loop.create_unix_server(server, sock=sock, backlog=BACKLOG)
            else:
                factory = server if tls is None else server.over_tls(tls)
                serving = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
            self._servers.append(serving)

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
        for sock in self.sockets:
            sock.close()

    def close(self) -> None:
        """Accepts no further connections, and removes the files of unix sockets."""
        for sock in self.sockets:
            remove_file(sock)
        self._stop_accepting()

    def _stop_accepting(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
