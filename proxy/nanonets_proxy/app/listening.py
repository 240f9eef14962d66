"""The listening sockets of one setting, and the servers that accept connections on them."""

import asyncio
import socket
from collections.abc import Sequence

from nanonets_proxy.core.net.addresses import Listener
from nanonets_proxy.server.listeners import BACKLOG, close_sockets, describe, open_sockets, remove_file
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.server.tls import ListenerTls


class Listening:
    """Call `open`, then either `serve` and `close`, or `abandon`."""

    def __init__(self, setting: str, listeners: Sequence[Listener]) -> None:
        """Takes the name of the setting, for messages."""
        self._setting = setting
        self._listeners = listeners
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self.addresses: list[str] = []
        """The addresses of the opened sockets, as callers write them."""

    def open(self) -> None:
        """Opens all sockets. Raises ListenFailed if an address is busy; then no socket stays open."""
        self._sockets = open_sockets(self._setting, self._listeners)
        self.addresses = [describe(sock) for sock in self._sockets]

    def abandon(self) -> None:
        """Closes opened sockets that are not served."""
        close_sockets(self._sockets)

    async def serve(self, server: CallerServer, tls: ListenerTls | None = None) -> None:
        """Begins to accept connections: on TCP over TLS if it is given, on unix sockets in plain text."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            if sock.family is socket.AF_UNIX:
                serving = await loop.create_unix_server(server, sock=sock, backlog=BACKLOG)
            else:
                factory = server if tls is None else server.over_tls(tls)
                serving = await loop.create_server(factory, sock=sock, backlog=BACKLOG)
            self._servers.append(serving)

    def close(self) -> None:
        """Accepts no further connections, and removes the files of unix sockets."""
        for sock in self._sockets:
            remove_file(sock)
        for server in self._servers:
            server.close()
