"""One environment, with its own key, gate, upstream connections, metrics and listeners.

States:
starting  All sockets are opened before any of them is served.
ready     Callers are served.
announced Callers are served; readiness already says draining.
draining  No new connections. Waiting requests get 503; requests in flight may finish within a time limit.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from nanonets_proxy.admission.limit_log import limit_log
from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.admission.state_file import StateFile
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.app.access import connection_policy, make_authorizer, make_guard, reloaded_files
from nanonets_proxy.app.coalesced import Coalesced
from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment_status import EnvironmentStatusReader
from nanonets_proxy.app.faults import (
    report_dial_failure,
    report_exposed_files,
    report_lost_copy,
    report_lowered_connections,
    report_surplus,
    report_uncounted_pages,
)
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.http.retry import Retries
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.page_costs import PageCosts
from nanonets_proxy.core.ratelimit.scopes import ScopeTable
from nanonets_proxy.core.status.document import EnvironmentStatus
from nanonets_proxy.errors import UpstreamError
from nanonets_proxy.keys.key_manager import KeyManager, KeyManagerPolicy, KeyManagerServices
from nanonets_proxy.keys.source import FileKey, KeySource
from nanonets_proxy.pages.page_counter import PageCounter, can_count_pages
from nanonets_proxy.request.context import Services
from nanonets_proxy.request.handler import Handler
from nanonets_proxy.request.upload_pages import UploadPages
from nanonets_proxy.server.listeners import (
    BACKLOG,
    describe,
    open_sockets,
    remove_file,
)
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.server.tls import ListenerTls
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_status import KeyStatus
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.telemetry.recent_requests import RecentRequests
from nanonets_proxy.telemetry.unexpected_responses import UnexpectedResponses
from nanonets_proxy.upstream.body import BodyBudget, LostCopy
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.key_probe import DEFAULT_PATH, KeyProbe
from nanonets_proxy.upstream.pool import Pool

_SAVE_INTERVAL_S: Final = 60.0

Redact = Callable[[Iterable[bytes]], None]
"""Masks secrets in the log from now on."""


@dataclass(frozen=True, slots=True)
class InitialKeys:
    """The source of the API key, and the keys that it held at start."""

    source: KeySource
    keys: tuple[FoundKey, ...]


class Environment:
    """Call `open()`, which sets `addresses`, then `start()`, then `stop()`."""

    def __init__(
        self, config: EnvironmentConfig, initial: InitialKeys, redact: Redact, usage: UsageLedger | None = None
    ) -> None:
        self.name = config.name
        self.upstream_name = config.upstream_name
        self._config = config
        self._loop = loop = asyncio.get_running_loop()
        origin, log_fields = config.dial.origin, config.handler.log_fields
        self._log = structlog.get_logger(**log_fields)
        self._gate = Gate(config.gate, random.random)
        self.metrics = Metrics(
            self._read_gauges, lambda most: self._gate.scope_statuses(loop.time(), most), config.environments
        )
        self.alerts = Alerts(self.metrics.registry, log_fields)
        self._recent = RecentRequests(loop)
        path = config.state_file
        self._state_file = None if path is None else StateFile(path, str(origin), self.alerts)
        if self._state_file is not None:
            self._state_file.restore(self._gate, loop.time())
        self._room = WaitingRoom(self._gate, loop, limit_log(self._log), slept_s)
        self._pool = Pool(
            Dialer(config.dial, self._on_dial_failure),
            keep_alive_s=config.upstream_keep_alive_s,
            per_caller=config.pool_per_caller,
            on_surplus=lambda: report_surplus(self.alerts, self.upstream_name),
        )
        self._body_budget = BodyBudget(config.bodies, self._on_lost_copy)
        client = UpstreamClient(
            self._pool, first_byte_timeout_s=config.first_byte_timeout_s, on_retry=self.metrics.retries.inc
        )
        probe = KeyProbe(client, origin, config.key_probe or DEFAULT_PATH)
        self.key_manager = KeyManager(
            initial.source,
            initial.keys,
            KeyManagerPolicy(config.keyring, config.key_max_age_s, log_fields),
            KeyManagerServices(redact=redact, registry=self.metrics.registry, probe=probe),
        )
        self._tls = None if config.tls is None else ListenerTls(config.tls)
        self._secret_files = [initial.source.path] if isinstance(initial.source, FileKey) else []
        if config.tls is not None:
            self._secret_files.append(config.tls.key_file)
        self._authorizer = make_authorizer(
            config, self.metrics, usage.requests_by_day(config.name) if usage else {}
        )
        observers = [self.metrics.requests.observe, self._recent.ring.count]
        if usage is not None and self._authorizer is not None:
            observers.append(self._authorizer.give_back)
            usage.report_unrestored(self.alerts)
        self._reloaded_files = reloaded_files(config, self._authorizer, self._tls)
        guard = make_guard(config)
        self._page_costs = costs = _page_costs(config)
        self._page_counter = PageCounter(loop) if costs is not None and can_count_pages() else None
        services = Services(
            origin=origin,
            guard=guard,
            scopes=ScopeTable(config.scopes),
            page_costs=costs,
            upload_pages=None
            if costs is None or self._page_counter is None
            else UploadPages(self._page_counter, costs, self._room),
            waiting_room=self._room,
            body_budget=self._body_budget,
            client=client,
            keys=self.key_manager,
            retries=Retries(config.retries, random.random),
            metrics=self.metrics,
            unexpected=UnexpectedResponses(self.alerts),
            observers=tuple(observers),
            authorizer=self._authorizer,
            ledger=None if usage is None else usage.ledger,
        )
        self._handler = Handler(config.handler, services, loop)
        connections = connection_policy(config)
        self._max_connections = connections.max_connections
        self._server = CallerServer(
            self._handler,
            guard,
            connections,
            self.metrics.registry,
            self.alerts,
        )
        self._status = EnvironmentStatusReader(
            name=config.name,
            upstream_name=self.upstream_name,
            gate=self._gate,
            max_waiting=config.gate.max_waiting,
            key_status=self.key_status,
            recent=self._recent,
            alerts=self.alerts,
            pool=self._pool,
            bodies=self._body_budget,
            caller_connections=lambda: self._server.open_connections,
            max_connections=self._max_connections,
        )
        self.reload = Coalesced(self._reload_once)
        """Reads the keys and the watched files again. Returns the first fault, or None."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._state = "starting"
        self._next_save: asyncio.TimerHandle | None = None
        self.addresses: list[str] = []

    def open(self) -> list[socket.socket]:
        """Opens and returns the sockets, before any is served. Raises ListenFailed if an address is busy."""
        setting = f"environments.{self.name}.listen" if self.name else "listen"
        self._sockets = open_sockets(setting, self._config.listen)
        self.addresses = [describe(sock) for sock in self._sockets]
        return self._sockets

    async def start(self) -> None:
        """Begins to serve the opened sockets."""
        for setting, value in self._config.permissive_settings.items():
            self._log.warning("boundary_loosened", setting=setting, value=value)
        report_lowered_connections(self.alerts, self._config.max_connections, self._max_connections)
        if self._page_counter is not None:
            await self._page_counter.start()
        elif self._page_costs is not None:
            report_uncounted_pages(self.alerts)
        report_exposed_files(self.alerts, self._secret_files)
        self.key_manager.start()
        self._recent.start()
        for file in self._reloaded_files:
            file.start()
        for sock in self._sockets:
            self._servers.append(await self._serve_on(sock))
        self._state = "ready"
        if self._state_file is not None:
            self._keep_saving_state()

    async def _serve_on(self, sock: socket.socket) -> asyncio.Server:
        if sock.family is socket.AF_UNIX:
            return await self._loop.create_unix_server(self._server, sock=sock, backlog=BACKLOG)
        if self._tls is None:
            return await self._loop.create_server(self._server, sock=sock, backlog=BACKLOG)
        return await self._loop.create_server(self._server.over_tls(self._tls.context), sock=sock, backlog=BACKLOG)

    def announce_drain(self) -> None:
        """Ends readiness, and serves on."""
        self._state = "draining"

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains for at most `drain_timeout_s`, then closes everything and saves the state file."""
        self._state = "draining"
        if self._next_save is not None:
            self._next_save.cancel()
        self._log.info("draining", in_flight=self._gate.in_flight, waiting=self._gate.waiting)
        remove_files(self._sockets)
        for server in self._servers:
            server.close()
        self._handler.drain()
        self._room.close()
        await self.key_manager.stop()
        for file in self._reloaded_files:
            await file.stop()
        cut_off = await self._server.drain(drain_timeout_s)
        if self._page_counter is not None:
            self._page_counter.close()
        self._pool.close()
        self._recent.stop()
        self._save_state()
        self._log.info("stopped", cut_off=cut_off)

    def _on_lost_copy(self, cause: LostCopy, error: OSError | None) -> None:
        report_lost_copy(self.alerts, self._config.bodies, cause, error)

    def _on_dial_failure(self, error: UpstreamError) -> None:
        report_dial_failure(self.alerts, self.upstream_name, error)

    def _save_state(self) -> None:
        if self._state_file is not None:
            self._state_file.save(self._gate, self._loop.time())

    def _keep_saving_state(self) -> None:
        """Saves the state now and every minute, so that a crash loses little of it."""
        self._save_state()
        self._next_save = self._loop.call_later(_SAVE_INTERVAL_S, self._keep_saving_state)

    def key_status(self) -> KeyStatus:
        """Returns the public facts about the keys."""
        return self.key_manager.status()

    def status(self, most: int) -> EnvironmentStatus:
        """Returns the status for operators, with lists of at most `most` items."""
        return self._status.read(self._state, most, self._loop.time())

    async def _reload_once(self) -> str | None:
        faults = [file.reload() for file in self._reloaded_files]
        return next(filter(None, [await self.key_manager.reload(), *faults]), None)

    def not_ready_reason(self) -> str | None:
        """Returns why the environment is not ready, or None if it is."""
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
            "nanonets_proxy_upstream_connections_opened": self._pool.opened,
            "nanonets_proxy_body_memory_bytes": self._body_budget.memory_bytes,
            "nanonets_proxy_body_spool_bytes": self._body_budget.spool_bytes,
            "nanonets_proxy_caller_connections": self._server.open_connections,
            "nanonets_proxy_ready": float(self.not_ready_reason() is None),
        }


def remove_files(sockets: Sequence[socket.socket]) -> None:
    """Removes the socket files of unix sockets."""
    for sock in sockets:
        if sock.family is socket.AF_UNIX:
            remove_file(sock)


def _page_costs(config: EnvironmentConfig) -> PageCosts | None:
    """Returns the costs of requests; None if each request costs 1."""
    costs = PageCosts(config.handler.cost_header, config.scopes, config.gate.static_limits.rows)
    return costs if costs.in_use else None
