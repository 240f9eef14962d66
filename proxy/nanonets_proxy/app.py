"""The composition root: settings in, running servers out.

starting  sockets are opened; none is served before all could be
ready     callers are served
draining  no new connections; callers that wait get 503, answers under way go on up to a time limit
stopped
"""

import asyncio
import random
import socket

import structlog
from aiohttp import web

from nanonets_proxy.admin.server import create_admin_app
from nanonets_proxy.core.addresses import Origin
from nanonets_proxy.core.api_key import ApiKey
from nanonets_proxy.core.gate import Gate, GatePolicy
from nanonets_proxy.core.guard import Guard, GuardPolicy
from nanonets_proxy.core.retry import Retries, RetryPolicy
from nanonets_proxy.core.scopes import ScopeRule, ScopeTable
from nanonets_proxy.downstream.handler import Handler, HandlerPolicy, Services
from nanonets_proxy.downstream.listeners import ListenFailed, close_sockets, describe, open_sockets, remove_file
from nanonets_proxy.downstream.server import CallerServer
from nanonets_proxy.downstream.waiting import WaitingRoom
from nanonets_proxy.settings import Settings
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.upstream.body import BodyPolicy, BodyStore
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.dial import Dialer, DialPolicy
from nanonets_proxy.upstream.pool import Pool


class Proxy:
    """One running proxy. `start()`, then `stop()`; the addresses are known in between."""

    def __init__(self, settings: Settings, origin: Origin, key: ApiKey) -> None:
        """`origin` is where requests go: the settings' upstream, or the embedded sandbox."""
        self._settings = settings
        self._loop = loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self.key = key
        self._gate = Gate(_gate_policy(settings), random.random)
        self._room = WaitingRoom(self._gate, loop)
        dialer = Dialer(
            DialPolicy(
                origin=origin,
                connect_timeout_s=settings.connect_timeout,
                idle_timeout_s=settings.idle_timeout,
                ca_file=settings.ca_file,
                egress_proxy=settings.egress_proxy,
            )
        )
        self._pool = Pool(dialer, keep_alive_s=settings.upstream_keep_alive)
        self._store = BodyStore(_body_policy(settings))
        # Clients with a proxy variable keep the upstream's own name in Host; no stranger can register it.
        self._guard = Guard(GuardPolicy(settings.allow_from, (*settings.allowed_hosts, origin.host)))
        self._metrics = Metrics(self._read_gauges)
        retries = RetryPolicy(settings.retries, settings.retry_backoff, settings.retry_budget)
        services = Services(
            origin=origin,
            guard=self._guard,
            scopes=ScopeTable([ScopeRule.parse(rule) for rule in settings.scopes]),
            room=self._room,
            store=self._store,
            client=UpstreamClient(
                self._pool, first_byte_timeout_s=settings.first_byte_timeout, on_retry=self._metrics.retries.inc
            ),
            current_key=lambda: self.key,
            retries=Retries(retries, random.random),
            metrics=self._metrics,
        )
        self._handler = Handler(_handler_policy(settings), services, loop)
        self._server = CallerServer(
            self._handler, keep_alive_s=settings.keep_alive, head_timeout_s=settings.head_timeout
        )
        self._admin = web.AppRunner(
            create_admin_app(self._guard, self._metrics, self._not_ready_reason), access_log=None
        )
        self._listening: list[asyncio.Server] = []
        self._unix_sockets: list[socket.socket] = []
        self._state = "starting"
        self.addresses: list[str] = []
        self.admin_addresses: list[str] = []

    async def start(self) -> None:
        """Raises ListenFailed with nothing left open."""
        sockets = open_sockets("listen", self._settings.listen)
        try:
            admin_sockets = open_sockets("admin_listen", self._settings.admin_listen)
        except ListenFailed:
            close_sockets(sockets)
            raise
        self.addresses = [describe(sock) for sock in sockets]
        self.admin_addresses = [describe(sock) for sock in admin_sockets]
        await self._admin.setup()
        for sock in admin_sockets:
            await web.SockSite(self._admin, sock).start()
        for sock in sockets:
            self._listening.append(await self._serve_on(sock))
        self._unix_sockets = [sock for sock in (*sockets, *admin_sockets) if sock.family is socket.AF_UNIX]
        self._state = "ready"

    async def _serve_on(self, sock: socket.socket) -> asyncio.Server:
        # The type stubs know only the asyncio protocol factory; aiohttp's server is one.
        if sock.family is socket.AF_UNIX:
            return await self._loop.create_unix_server(self._server, sock=sock)
        return await self._loop.create_server(self._server, sock=sock)

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains, then closes everything. Callers that wait are sent away, answers under way may end."""
        self._state = "draining"
        self._log.info("draining", in_flight=self._gate.in_flight, waiting=self._gate.waiting)
        for sock in self._unix_sockets:
            remove_file(sock)
        for server in self._listening:
            server.close()
        self._handler.draining = True
        self._room.close()
        cut_off = await self._server.drain(drain_timeout_s)
        self._pool.close()
        await self._admin.cleanup()
        self._log.info("stopped", cut_off=cut_off)

    def _not_ready_reason(self) -> str | None:
        return None if self._state == "ready" else self._state

    def _read_gauges(self) -> dict[str, float]:
        now_s = self._loop.time()
        closed = self._gate.closed_scopes(now_s)
        return {
            "nanonets_proxy_waiting": self._gate.waiting,
            "nanonets_proxy_in_flight": self._gate.in_flight,
            "nanonets_proxy_cooldown_seconds": max(closed.values(), default=now_s) - now_s,
            "nanonets_proxy_closed_scopes": len(closed),
            "nanonets_proxy_idle_upstream_connections": self._pool.idle,
            "nanonets_proxy_body_memory_bytes": self._store.memory_bytes,
            "nanonets_proxy_body_spool_bytes": self._store.spool_bytes,
            "nanonets_proxy_ready": float(self._not_ready_reason() is None),
        }


def _gate_policy(settings: Settings) -> GatePolicy:
    return GatePolicy(max_in_flight=settings.pool_size, max_waiting=settings.max_waiting)


def _handler_policy(settings: Settings) -> HandlerPolicy:
    return HandlerPolicy(
        max_wait_s=settings.max_wait,
        idle_timeout_s=settings.idle_timeout,
        caller_header=settings.caller_header,
        server_timing=settings.server_timing,
        via=settings.via,
    )


def _body_policy(settings: Settings) -> BodyPolicy:
    return BodyPolicy(
        memory_bytes=settings.body_memory,
        memory_total_bytes=settings.body_memory_total,
        spool_dir=settings.spool_path(),
        spool_total_bytes=settings.spool_total,
        replay_limit_bytes=settings.replay_limit,
    )
