"""The program that one process runs: its environments, and the admin listener that they share.

States of its end; the admin listener serves in all of them, and /livez responds with 200:
serving    /readyz says ready.
announced  After the first SIGTERM or SIGINT, for `drain_delay`: callers are served, and /readyz says draining.
draining   After the delay, or at once after POST /quitquitquit: no new connections, waiting requests get 503, and
           requests in flight may finish within `drain_timeout`.
stopped    All connections and the admin listener are closed. The process ends with 0.
In every state, a second signal ends the process at once.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from nanonets_proxy.admin.server import AdminHandler, admin_connection_policy
from nanonets_proxy.app.config import ServeConfig
from nanonets_proxy.app.environment import Environment, remove_files
from nanonets_proxy.app.shutdown import Shutdown
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.server.listeners import BACKLOG, ListenFailed, close_sockets, describe, open_sockets
from nanonets_proxy.server.open_files import last_file, most_admin_connections, most_viewers, open_files_limit
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.event_loop import EventLoopLag
from nanonets_proxy.telemetry.metrics import combined_registry

if TYPE_CHECKING:  # needed by annotations only
    import socket

# For a scrape or a reload in progress. More would outlast what supervisors allow.
_ADMIN_STOP_S: Final = 1.0


class Program:
    """Call `start()`, then `run_until_stopped()`."""

    def __init__(
        self,
        config: ServeConfig,
        environments: Sequence[Environment],
        shutdown: Shutdown,
        usage: UsageLedger | None = None,
    ) -> None:
        self._config = config
        self._shutdown = shutdown
        self.environments = environments
        self.usage = usage
        if usage is not None:
            usage.alerts = environments[0].alerts
        self.registry = registry = combined_registry(
            {environment.name: environment.metrics.registry for environment in environments}
        )
        guard, files = PeerGuard(config.admin_guard), open_files_limit()
        self._admin_handler = AdminHandler(
            guard,
            registry,
            environments,
            self.unread_settings,
            on_quit=shutdown.quit if config.admin_quit else None,
            most_viewers=most_viewers(files),
        )
        self._admin = CallerServer(
            self._admin_handler,
            guard,
            admin_connection_policy(most_admin_connections(files), last_file(files)),
            registry,
            environments[0].alerts,
        )
        self._event_loop_lag = EventLoopLag(registry)
        self._admin_sockets: list[socket.socket] = []
        self._admin_servers: list[asyncio.Server] = []
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
        for sock in self._admin_sockets:
            self._admin_servers.append(await self._serve_admin(sock))
        for environment in self.environments:
            await environment.start()
        self._event_loop_lag.start()

    async def _serve_admin(self, sock: "socket.socket") -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if isinstance(sock.getsockname(), str):
            return await loop.create_unix_server(self._admin, sock=sock, backlog=BACKLOG)
        return await loop.create_server(self._admin, sock=sock, backlog=BACKLOG)

    async def reload(self) -> None:
        """Reads the keys and the watched files of every environment again."""
        self.unread_settings()
        for environment in self.environments:
            await environment.reload()

    def unread_settings(self) -> str | None:
        """Returns that a reload does not read the settings file, if the file has changed, and reports an alert."""
        file = self._config.settings_file
        if file is None or not file.has_changed():
            return None
        advice = "restart the proxy: a reload reads keys, caller tokens and certificates, and no settings"
        alerts = self.environments[0].alerts
        alerts.report("settings_file_not_read", advice, log_always=True, path=str(file.path))
        return f"{file.path} has changed and was not read; {advice}"

    async def run_until_stopped(self) -> None:
        """Serves until the shutdown is requested, then delays the drain, and drains."""
        await self._shutdown.requested()
        delay_s = self._config.drain_delay_s
        structlog.get_logger().info("stop_requested", by=self._shutdown.by, drain_delay_s=delay_s)
        for environment in self.environments:
            environment.announce_drain()
        await self._shutdown.delay(delay_s)
        await self.stop(self._config.drain_timeout_s)

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains all environments at the same time, then stops the admin listener."""
        self._event_loop_lag.stop()
        await asyncio.gather(*(environment.stop(drain_timeout_s) for environment in self.environments))
        if self.usage is not None:
            self.usage.close()
        remove_files(self._admin_sockets)
        for server in self._admin_servers:
            server.close()
        self._admin_handler.events.close()
        await self._admin.drain(_ADMIN_STOP_S)
