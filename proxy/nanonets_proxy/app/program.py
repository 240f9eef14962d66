"""The program that one process runs: its environments, and the admin listener that they share."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from nanonets_proxy.admin.server import create_admin_app
from nanonets_proxy.app.config import ServeConfig
from nanonets_proxy.app.environment import Environment, remove_files
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.server.listeners import BACKLOG, ListenFailed, close_sockets, describe, open_sockets
from nanonets_proxy.telemetry.metrics import combined_registry

if TYPE_CHECKING:  # needed by annotations only
    import socket


class Program:
    """Call `start()`, then `stop()`."""

    def __init__(self, config: ServeConfig, environments: Sequence[Environment]) -> None:
        self._config = config
        self.environments = environments
        registry = combined_registry(
            {environment.name: environment.metrics.registry for environment in environments}
        )
        self._admin = web.AppRunner(
            create_admin_app(PeerGuard(config.admin_guard), registry, environments), access_log=None
        )
        self._admin_sockets: list[socket.socket] = []
        self.admin_addresses: list[str] = []

    async def start(self) -> None:
        """Opens all sockets, then serves them. Raises ListenFailed, and leaves no socket open then."""
        opened: list[socket.socket] = []
        try:
            for environment in self.environments:
                opened += environment.open()
            self._admin_sockets = open_sockets("admin_listen", self._config.admin_listen)
        except ListenFailed:
            close_sockets(opened)
            raise
        self.admin_addresses = [describe(sock) for sock in self._admin_sockets]
        await self._admin.setup()
        for sock in self._admin_sockets:
            await web.SockSite(self._admin, sock, backlog=BACKLOG).start()
        for environment in self.environments:
            await environment.start()

    async def reload(self) -> None:
        """Reads the keys and the watched files of every environment again."""
        for environment in self.environments:
            await environment.reload()

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains all environments at the same time, then stops the admin listener."""
        remove_files(self._admin_sockets)
        await asyncio.gather(*(environment.stop(drain_timeout_s) for environment in self.environments))
        await self._admin.cleanup()
