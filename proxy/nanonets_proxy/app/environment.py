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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakSet

import structlog

from nanonets_proxy.admission.limit_log import limit_log
from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.admission.state_file import StateFile
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.app.access import AccessControl, connection_policy
from nanonets_proxy.app.coalesced import Coalesced
from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment_status import EnvironmentStatusReader
from nanonets_proxy.app.faults import (
    report_dial_failure,
    report_exposed_files,
    report_lost_copy,
    report_lowered_connections,
    report_surplus,
)
from nanonets_proxy.app.pages import Pages
from nanonets_proxy.app.reloading import with_fixed_parts
from nanonets_proxy.app.tracing import make_tracer
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.http.retry import Retries
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeTable
from nanonets_proxy.core.status.document import EnvironmentStatus
from nanonets_proxy.keys.key_manager import KeyManager, KeyManagerPolicy, KeyManagerServices
from nanonets_proxy.keys.source import FileKey, KeySource
from nanonets_proxy.request.context import Services
from nanonets_proxy.request.handler import Handler
from nanonets_proxy.server.listeners import (
    BACKLOG,
    describe,
    open_sockets,
    remove_file,
)
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_status import KeyStatus
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.telemetry.recent_requests import RecentRequests
from nanonets_proxy.telemetry.unexpected_responses import UnexpectedResponses
from nanonets_proxy.upstream.body import BodyBudget, LostCopy
from nanonets_proxy.upstream.client import UpstreamClient
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.errors import UpstreamError
from nanonets_proxy.upstream.key_probe import DEFAULT_PATH, KeyProbe
from nanonets_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from nanonets_proxy.telemetry.finished_request import Observer

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
            self._read_gauges, lambda most: self._gate.scopes.statuses(loop.time(), most), config.environments
        )
        self.alerts = Alerts(self.metrics.registry, log_fields)
        self._recent = RecentRequests(loop)
        path = config.state_file
        self._state_file = None if path is None else StateFile(path, str(origin), self.alerts)
        if self._state_file is not None:
            self._state_file.restore(self._gate, loop.time())
        self._room = WaitingRoom(self._gate, loop, limit_log(self._log), slept_s)
        self._pool = Pool(
            self._dialer(config),
            keep_alive_s=config.upstream_keep_alive_s,
            per_caller=config.pool_per_caller,
            on_surplus=lambda: report_surplus(self.alerts, self.upstream_name),
        )
        self._body_budget = BodyBudget(config.bodies, self._on_lost_copy)
        self._client = UpstreamClient(
            self._pool, first_byte_timeout_s=config.first_byte_timeout_s, on_retry=self.metrics.retries.inc
        )
        self.key_manager = KeyManager(
            initial.source,
            initial.keys,
            _key_policy(config),
            KeyManagerServices(redact=redact, registry=self.metrics.registry, probe=self._key_probe(config)),
        )
        self._secret_files = [initial.source.path] if isinstance(initial.source, FileKey) else []
        if config.tls is not None:
            self._secret_files.append(config.tls.key_file)
        self._redact = redact
        self._access = AccessControl(config, self.metrics, usage.requests_by_day(config.name) if usage else {})
        if usage is not None and self._access.authorizer is not None:
            usage.report_unrestored(self.alerts)
        self._usage = usage
        self._pages = Pages(config, self._room, self.alerts)
        self._unexpected = UnexpectedResponses(self.alerts)
        self._tracer = make_tracer(config, self.metrics, self.alerts)
        self._retries = Retries(config.retries, random.random)
        self._handlers: WeakSet[Handler] = WeakSet()  # earlier ones have requests in flight
        self._handler = self._make_handler(config)
        connections = connection_policy(config)
        self._max_connections = connections.max_connections
        self._server = CallerServer(
            self._handler, self._access.guard, connections, self.metrics.registry, self.alerts
        )
        self._status = self._make_status_reader(config)
        self.reload = Coalesced(self._reload_once)
        """Reads the keys and the watched files again. Returns the first fault, or None."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._state = "starting"
        self._next_save: asyncio.TimerHandle | None = None
        self.addresses: list[str] = []

    def _make_status_reader(self, config: EnvironmentConfig) -> EnvironmentStatusReader:
        return EnvironmentStatusReader(
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
            usage=None if self._usage is None else partial(self._usage.today, self.name),
        )

    def _make_handler(self, config: EnvironmentConfig) -> Handler:
        usage, authorizer = self._usage, self._access.authorizer
        observers: list[Observer] = [self.metrics.requests.observe, self._recent.ring.count]
        if usage is not None and authorizer is not None:
            observers.append(authorizer.give_back)
        if self._tracer is not None:
            observers.append(cast("Observer", self._tracer.observe))  # of a whole access record
        services = Services(
            tracer=self._tracer,
            origin=config.dial.origin,
            guard=self._access.guard,
            scopes=ScopeTable(config.scopes),
            page_costs=self._pages.costs,
            upload_pages=self._pages.uploads,
            waiting_room=self._room,
            body_budget=self._body_budget,
            client=self._client,
            keys=self.key_manager,
            retries=self._retries,
            metrics=self.metrics,
            unexpected=self._unexpected,
            observers=tuple(observers),
            authorizer=authorizer,
            ledger=None if usage is None else usage.ledger,
        )
        handler = Handler(config.handler, services, self._loop)
        self._handlers.add(handler)
        return handler

    def _dialer(self, config: EnvironmentConfig) -> Dialer:
        return Dialer(config.dial, self._on_dial_failure)

    def _key_probe(self, config: EnvironmentConfig) -> KeyProbe:
        return KeyProbe(self._client, config.dial.origin, config.key_probe or DEFAULT_PATH)

    def open(self) -> list[socket.socket]:
        """Opens and returns the sockets, before any is served. Raises ListenFailed if an address is busy."""
        setting = f"environments.{self.name}.listen" if self.name else "listen"
        self._sockets = open_sockets(setting, self._config.listen)
        self.addresses = [describe(sock) for sock in self._sockets]
        return self._sockets

    async def start(self) -> None:
        """Begins to serve the opened sockets."""
        self._warn_of_permissive_settings({})
        report_lowered_connections(self.alerts, self._config.max_connections, self._max_connections)
        await self._pages.start()
        report_exposed_files(self.alerts, self._secret_files)
        self.key_manager.start()
        self._recent.start()
        self._access.start()
        if self._tracer is not None:
            self._tracer.start()
        for sock in self._sockets:
            self._servers.append(await self._serve_on(sock))
        self._state = "ready"
        if self._state_file is not None:
            self._keep_saving_state()

    async def _serve_on(self, sock: socket.socket) -> asyncio.Server:
        if sock.family is socket.AF_UNIX:
            return await self._loop.create_unix_server(self._server, sock=sock, backlog=BACKLOG)
        if self._access.tls is None:
            return await self._loop.create_server(self._server, sock=sock, backlog=BACKLOG)
        return await self._loop.create_server(self._server.over_tls(self._access.tls), sock=sock, backlog=BACKLOG)

    # --- another configuration --------------------------------------------------------------------

    def prepare_change(self, config: EnvironmentConfig) -> Callable[[], None]:
        """Returns a function that applies another configuration, and cannot fail.

        It applies to requests that begin later; waiting requests keep their place. The parts that only a restart
        can change (`reloading.FIXED`) stay as they are.

        Raises:
            OSError, ValueError: a file cannot be used.
        """
        old = self._config
        new = with_fixed_parts(config, old)
        apply_access = self._access.prepare(new)
        dialer = None if new.dial == old.dial else self._dialer(new)

        def apply() -> None:
            self._config = new
            if new.dial.egress_proxy is not None:
                self._redact(new.dial.egress_proxy.secrets())
            apply_access()
            self._pool.change(dialer, keep_alive_s=new.upstream_keep_alive_s, per_caller=new.pool_per_caller)
            self._client.change_timeout(new.first_byte_timeout_s)
            self._body_budget.policy = new.bodies
            self._retries.change_policy(new.retries)
            self._pages.change(new)
            self.key_manager.change_policy(_key_policy(new), self._key_probe(new))
            self._handler = self._make_handler(new)
            connections = connection_policy(new)
            self._max_connections = connections.max_connections
            self._server.change(self._handler, connections)
            self._status = self._make_status_reader(new)
            self._room.change_policy(new.gate)
            self._warn_of_permissive_settings(old.permissive_settings)
            report_lowered_connections(self.alerts, new.max_connections, self._max_connections)

        return apply

    def _warn_of_permissive_settings(self, known: Mapping[str, str]) -> None:
        for setting, value in self._config.permissive_settings.items():
            if known.get(setting) != value:
                self._log.warning("boundary_loosened", setting=setting, value=value)

    # --- the end ----------------------------------------------------------------------------------

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
        for handler in self._handlers:
            handler.drain()
        self._room.close()
        await self.key_manager.stop()
        await self._access.stop()
        cut_off = await self._server.drain(drain_timeout_s)
        self._pages.close()
        self._pool.close()
        self._recent.stop()
        if self._tracer is not None:
            await self._tracer.stop()
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

    def budget_of(self, caller: str) -> int | None:
        """Returns the caller's daily budget; None: it has none."""
        return self._access.budget_of(caller)

    def key_status(self) -> KeyStatus:
        """Returns the public facts about the keys."""
        return self.key_manager.status()

    def status(self, most: int) -> EnvironmentStatus:
        """Returns the status for operators, with lists of at most `most` items."""
        return self._status.read(self._state, most, self._loop.time())

    async def _reload_once(self) -> str | None:
        faults = [file.reload() for file in self._access.files]
        return next(filter(None, [await self.key_manager.reload(), *faults]), None)

    def not_ready_reason(self) -> str | None:
        """Returns why the environment is not ready, or None if it is."""
        return None if self._state == "ready" else self._state

    def _read_gauges(self) -> dict[str, float]:
        now_s = self._loop.time()
        closed = self._gate.scopes.closed(now_s)
        return {
            "nanonets_proxy_waiting": self._gate.waiting,
            "nanonets_proxy_in_flight": self._gate.in_flight,
            "nanonets_proxy_cooldown_seconds": max(closed.values(), default=now_s) - now_s,
            "nanonets_proxy_closed_scopes": len(closed),
            "nanonets_proxy_quota_reserve": self._gate.scopes.reserve(),
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


def _key_policy(config: EnvironmentConfig) -> KeyManagerPolicy:
    return KeyManagerPolicy(config.keyring, config.key_max_age_s, config.handler.log_fields)
