"""The composition root: settings in, running servers out.

starting  sockets are opened; none is served before all could be
ready     callers are served
draining  no new connections; callers that wait get 503, answers under way go on up to a time limit
stopped

`Proxy` is one environment, with a key, a gate, a pool, metrics and listeners of its own. `Program` is all that
a process runs: its environments, and the admin listener that they share.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from nanonets_proxy.admin.server import create_admin_app
from nanonets_proxy.boundary import connection_policy, loosened, make_door, make_guard, watched_files
from nanonets_proxy.core.addresses import Origin
from nanonets_proxy.core.gate import Gate, GatePolicy
from nanonets_proxy.core.key_records import FoundKey
from nanonets_proxy.core.keyring import KeyringPolicy
from nanonets_proxy.core.preset import Presets
from nanonets_proxy.core.public_key import parse_pin
from nanonets_proxy.core.retry import Retries, RetryPolicy
from nanonets_proxy.core.scopes import ScopeRule, ScopeTable
from nanonets_proxy.downstream.handler import Handler
from nanonets_proxy.downstream.listeners import (
    BACKLOG,
    ListenFailed,
    close_sockets,
    describe,
    open_sockets,
    remove_file,
)
from nanonets_proxy.downstream.passage import HandlerPolicy, Services
from nanonets_proxy.downstream.server import CallerServer
from nanonets_proxy.downstream.state_file import StateFile
from nanonets_proxy.downstream.tls import ListenerTls
from nanonets_proxy.downstream.waiting import WaitingRoom
from nanonets_proxy.keys.keeper import KeeperPolicy, KeeperServices, KeyKeeper
from nanonets_proxy.keys.source import KeySource
from nanonets_proxy.settings import Settings
from nanonets_proxy.telemetry.key_status import KeyStatus
from nanonets_proxy.telemetry.metrics import Metrics, join
from nanonets_proxy.upstream.body import BodyPolicy, BodyStore
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.dial import Dialer, DialPolicy
from nanonets_proxy.upstream.key_probe import KeyProbe
from nanonets_proxy.upstream.pool import Pool

# Long enough for a slow network; a half-open connection must not hold its file for the usual minute.
_HANDSHAKE_TIMEOUT_S: Final = 10.0
_SAVE_EACH_S: Final = 60.0

Redact = Callable[[Iterable[bytes]], None]


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """Where a key comes from, and the first reading of it."""

    source: KeySource
    found: tuple[FoundKey, ...]


class Proxy:
    """One environment. `open()`, `start()`, then `stop()`; the addresses are known in between."""

    def __init__(self, name: str, settings: Settings, origin: Origin, key: KeyInUse, redact: Redact) -> None:
        """`origin` is where requests go: the settings' upstream, or the embedded sandbox. The only environment
        has the empty name."""
        self.name = name
        self.upstream = "sandbox" if settings.sandbox else str(origin)
        self._settings = settings
        self._loop = loop = asyncio.get_running_loop()
        log_fields = {"environment": name} if name else {}
        self._log = structlog.get_logger(**log_fields)
        self._gate = Gate(_gate_policy(settings), random.random)
        self._state_file = None if settings.state_file is None else StateFile(settings.state_file, str(origin))
        if self._state_file is not None:
            self._state_file.restore(self._gate, loop.time())
        self._room = WaitingRoom(self._gate, loop)
        dialer = Dialer(
            DialPolicy(
                origin=origin,
                connect_timeout_s=settings.connect_timeout,
                idle_timeout_s=settings.idle_timeout,
                ca_file=settings.ca_file,
                egress_proxy=settings.egress_proxy,
                may_be_private=settings.upstream_private,
                pins=tuple(map(parse_pin, settings.upstream_pins)),
            )
        )
        self._pool = Pool(dialer, keep_alive_s=settings.upstream_keep_alive)
        self._store = BodyStore(_body_policy(settings))
        self.metrics = Metrics(self._read_gauges)
        client = UpstreamClient(
            self._pool, first_byte_timeout_s=settings.first_byte_timeout, on_retry=self.metrics.retries.inc
        )
        probe = KeyProbe(client, origin, settings.key_probe) if settings.key_probe else None
        self.keeper = KeyKeeper(
            key.source,
            key.found,
            _keeper_policy(settings, log_fields),
            KeeperServices(redact=redact, registry=self.metrics.registry, probe=probe),
        )
        self._tls = None if (tls := settings.listener_tls()) is None else ListenerTls(tls)
        self._door = make_door(settings, self.metrics)
        self._watched = watched_files(settings, self._door, self._tls)
        services = Services(
            origin=origin,
            # Clients with a proxy variable keep the upstream's own name in Host; no stranger can register it.
            guard=make_guard(settings, origin.host, any_peer=settings.callers_prove_themselves()),
            scopes=ScopeTable([ScopeRule.parse(rule) for rule in settings.scopes]),
            room=self._room,
            store=self._store,
            client=client,
            keys=self.keeper,
            retries=Retries(
                RetryPolicy(settings.retries, settings.retry_backoff, settings.retry_budget), random.random
            ),
            metrics=self.metrics,
            door=self._door,
        )
        self._handler = Handler(_handler_policy(settings, log_fields), services, loop)
        self._server = CallerServer(
            self._handler,
            keep_alive_s=settings.keep_alive,
            limits=connection_policy(settings),
            registry=self.metrics.registry,
            head_timeout_s=settings.head_timeout,
        )
        self._sockets: list[socket.socket] = []
        self._listening: list[asyncio.Server] = []
        self._state = "starting"
        self._next_save: asyncio.TimerHandle | None = None
        self.addresses: list[str] = []

    def open(self) -> list[socket.socket]:
        """The sockets, so that a busy address is known before anything is served. Raises ListenFailed."""
        setting = f"environments.{self.name}.listen" if self.name else "listen"
        self._sockets = open_sockets(setting, self._settings.listen)
        self.addresses = [describe(sock) for sock in self._sockets]
        return self._sockets

    async def start(self) -> None:
        for setting, value in loosened(self._settings).items():
            self._log.warning("boundary_loosened", setting=setting, value=value)
        self.keeper.start()
        for file in self._watched:
            file.start()
        for sock in self._sockets:
            self._listening.append(await self._serve_on(sock))
        self._state = "ready"
        if self._state_file is not None:
            self._save_state_again()

    async def _serve_on(self, sock: socket.socket) -> asyncio.Server:
        # The type stubs know only the asyncio protocol factory; aiohttp's server is one.
        if sock.family is socket.AF_UNIX:
            return await self._loop.create_unix_server(self._server, sock=sock, backlog=BACKLOG)
        if self._tls is None:
            return await self._loop.create_server(self._server, sock=sock, backlog=BACKLOG)
        return await self._loop.create_server(
            self._server,
            sock=sock,
            backlog=BACKLOG,
            ssl=self._tls.context,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
        )

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains, then closes everything. Callers that wait are sent away, answers under way may end."""
        self._state = "draining"
        if self._next_save is not None:
            self._next_save.cancel()
        self._log.info("draining", in_flight=self._gate.in_flight, waiting=self._gate.waiting)
        _remove_files(self._sockets)
        for server in self._listening:
            server.close()
        self._handler.drain()
        self._room.close()
        await self.keeper.stop()
        for file in self._watched:
            await file.stop()
        cut_off = await self._server.drain(drain_timeout_s)
        self._pool.close()
        self._save_state()
        self._log.info("stopped", cut_off=cut_off)

    def _save_state(self) -> None:
        if self._state_file is not None:
            self._state_file.save(self._gate, self._loop.time())

    def _save_state_again(self) -> None:
        """Every minute: what a crash would lose is then soon learned again."""
        self._save_state()
        self._next_save = self._loop.call_later(_SAVE_EACH_S, self._save_state_again)

    def key_status(self) -> KeyStatus:
        return self.keeper.status()

    async def reload(self) -> str | None:
        faults = [file.reload() for file in self._watched]
        return next(filter(None, [await self.keeper.reload(), *faults]), None)

    def not_ready_reason(self) -> str | None:
        return None if self._state == "ready" else self._state

    def _read_gauges(self) -> dict[str, float]:
        now_s = self._loop.time()
        closed = self._gate.closed_scopes(now_s)
        return {
            "nanonets_proxy_waiting": self._gate.waiting,
            "nanonets_proxy_in_flight": self._gate.in_flight,
            "nanonets_proxy_cooldown_seconds": max(closed.values(), default=now_s) - now_s,
            "nanonets_proxy_closed_scopes": len(closed),
            "nanonets_proxy_quota_reserve": self._gate.reserve(),
            "nanonets_proxy_idle_upstream_connections": self._pool.idle,
            "nanonets_proxy_body_memory_bytes": self._store.memory_bytes,
            "nanonets_proxy_body_spool_bytes": self._store.spool_bytes,
            "nanonets_proxy_caller_connections": self._server.open_connections,
            "nanonets_proxy_ready": float(self.not_ready_reason() is None),
        }


class Program:
    """All that a process runs. `start()`, then `stop()`."""

    def __init__(self, settings: Settings, proxies: Sequence[Proxy]) -> None:
        """`settings` are those of the process: its admin listener, and who may use it."""
        self._settings = settings
        self.proxies = proxies
        registry = join({proxy.name: proxy.metrics.registry for proxy in proxies})
        self._admin = web.AppRunner(create_admin_app(make_guard(settings), registry, proxies), access_log=None)
        self._admin_sockets: list[socket.socket] = []
        self.admin_addresses: list[str] = []

    async def start(self) -> None:
        """Raises ListenFailed with nothing left open."""
        opened: list[socket.socket] = []
        try:
            for proxy in self.proxies:
                opened += proxy.open()
            self._admin_sockets = open_sockets("admin_listen", self._settings.admin_listen)
        except ListenFailed:
            close_sockets(opened)
            raise
        self.admin_addresses = [describe(sock) for sock in self._admin_sockets]
        await self._admin.setup()
        for sock in self._admin_sockets:
            await web.SockSite(self._admin, sock, backlog=BACKLOG).start()
        for proxy in self.proxies:
            await proxy.start()

    async def reload(self) -> None:
        """Reads every key again."""
        for proxy in self.proxies:
            await proxy.reload()

    async def stop(self, drain_timeout_s: float) -> None:
        _remove_files(self._admin_sockets)
        await asyncio.gather(*(proxy.stop(drain_timeout_s) for proxy in self.proxies))
        await self._admin.cleanup()


def _remove_files(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        if sock.family is socket.AF_UNIX:
            remove_file(sock)


def _keeper_policy(settings: Settings, log_fields: Mapping[str, str]) -> KeeperPolicy:
    ring = KeyringPolicy(gap_s=settings.key_gap, grace_s=settings.key_grace, requests_try=not settings.key_probe)
    return KeeperPolicy(ring, settings.key_max_age, log_fields)


def _gate_policy(settings: Settings) -> GatePolicy:
    return GatePolicy(
        max_in_flight=settings.pool_size,
        max_waiting=settings.max_waiting,
        max_waiting_per_lane=settings.max_waiting_per_caller,
        lane_weights=settings.lane_weights,
        presets=Presets.parse(settings.limits),
    )


def _handler_policy(settings: Settings, log_fields: Mapping[str, str]) -> HandlerPolicy:
    return HandlerPolicy(
        max_wait_s=settings.max_wait,
        idle_timeout_s=settings.idle_timeout,
        body_timeout_s=settings.body_timeout,
        caller_header=settings.caller_header,
        server_timing=settings.server_timing,
        via=settings.via,
        credentials_header=settings.caller_token_header or "authorization",
        tls=settings.tls_cert is not None,
        log_fields=log_fields,
    )


def _body_policy(settings: Settings) -> BodyPolicy:
    return BodyPolicy(
        memory_bytes=settings.body_memory,
        memory_total_bytes=settings.body_memory_total,
        spool_dir=settings.spool_path(),
        spool_total_bytes=settings.spool_total,
        replay_limit_bytes=settings.replay_limit,
    )
