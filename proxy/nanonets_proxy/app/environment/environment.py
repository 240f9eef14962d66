"""One environment, with its own key, gate, upstream connections, metrics and listeners.

States:
starting  The sockets of all environments are opened before any of them is served.
ready     Callers are served.
announced Callers are served; readiness already says draining.
draining  No new connections. Waiting requests get 503; requests in flight may finish within a time limit.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import structlog

from nanonets_proxy.admission.limit_log import limit_log
from nanonets_proxy.admission.quota_alarms import quota_alarms
from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.admission.state_file import StateFile
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.app.config import EnvironmentConfig
from nanonets_proxy.app.environment.access import AccessControl, connection_policy
from nanonets_proxy.app.environment.environment_status import EnvironmentStatusReader
from nanonets_proxy.app.environment.faults import report_exposed_files, report_settings
from nanonets_proxy.app.environment.gate_handover import GateHandover
from nanonets_proxy.app.environment.gate_view import GateView, OwnGate
from nanonets_proxy.app.environment.jobs import EnvironmentJobs
from nanonets_proxy.app.environment.pages import Pages
from nanonets_proxy.app.environment.tracing import make_tracer
from nanonets_proxy.app.environment.upstream import Upstream
from nanonets_proxy.app.listening import Listening
from nanonets_proxy.app.reloading import with_fixed_parts
from nanonets_proxy.app.shared_runs import SharedRuns
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.coalescing.groups import Groups
from nanonets_proxy.core.http.retry import Retries
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeTable
from nanonets_proxy.core.status.document import EnvironmentStatus, KeysStatus
from nanonets_proxy.keys.key_manager import KeyManager, KeyManagerPolicy, KeyManagerServices
from nanonets_proxy.keys.source import InitialKeys
from nanonets_proxy.request.context import Services
from nanonets_proxy.request.handler import Handler
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.metrics import Metrics
from nanonets_proxy.telemetry.recent_requests import RecentRequests
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.unexpected_responses import UnexpectedResponses

if TYPE_CHECKING:
    from nanonets_proxy.admission.admission import Admission
    from nanonets_proxy.app.environment.fleet import Fleet
    from nanonets_proxy.app.environment.fleet_handover import FleetHandover
    from nanonets_proxy.telemetry.finished_request import Observer


class Environment:
    """Call `listening.open()`, then `start()`, then `stop()`."""

    def __init__(
        self, config: EnvironmentConfig, initial: InitialKeys, redactor: Redactor, usage: UsageLedger | None = None
    ) -> None:
        self._config = config
        self.name, self.usage_name, self.upstream_name = config.name, config.usage_name, config.upstream_name
        self._loop = loop = asyncio.get_running_loop()
        origin, log_fields = config.dial.origin, config.handler.log_fields
        self._log = structlog.get_logger(**log_fields)
        self._gate = gate = Gate(config.gate, random.random)
        self._view: GateView = OwnGate(gate)
        self._fleet: Fleet | None = None
        self.metrics = Metrics(
            self.gauges, lambda most: self._view.scope_statuses(loop.time(), most), config.environments
        )
        self.alerts = Alerts(self.metrics.registry, log_fields)
        self._recent = RecentRequests(loop, self.metrics.requests.totals, lambda: self._view.has_free_places)
        self.metrics.requests.on_unusual = self._recent.ring.count_unusual
        self._state_file: StateFile | None = None
        if config.state_file is not None:
            self._state_file = StateFile(config.state_file, gate, str(origin), self.alerts, redactor)
        on_news = limit_log(self._log, quota_alarms(self.alerts, lambda scope: self._pages.unit_of(scope)))
        room = WaitingRoom(gate, loop, on_news, slept_s)
        self._room: Admission = room
        self.gate_handover: GateHandover | FleetHandover
        self.gate_handover = GateHandover(gate, room, str(origin), lambda: self._config.gate, self._state_file)
        if config.fleet is not None:
            # Imported here: most processes decide alone.
            from nanonets_proxy.app.environment import fleet

            self._view = self._fleet = fleet.Fleet(config.fleet, config.gate, on_news, self.alerts, log_fields)
            self._room, self.gate_handover = self._fleet.room, self._fleet.handover
        self._upstream = Upstream(config, self.alerts, self.metrics.retries.inc)
        self.key_manager = KeyManager(
            initial.source,
            initial.keys,
            _key_policy(config),
            KeyManagerServices(
                redact=redactor.for_source(),
                registry=self.metrics.registry,
                alerts=self.alerts,
                probe=self._upstream.key_probe(config),
            ),
        )
        self._secret_files, self._redactor = config.secret_files(initial.source.source), redactor
        earlier = usage.requests_by_day(config.usage_name) if usage else {}
        counts = None if self._fleet is None else self._fleet.counts
        self._access = AccessControl(config, self.metrics, earlier, counts, self.alerts)
        if usage is not None and self._access.authorizer is not None:
            usage.report_unrestored(self.alerts)
        self._usage = usage
        self._pages = Pages(config, self._room, self.alerts)
        self._unexpected = UnexpectedResponses(self.alerts, self._recent.ring.note_unexpected)
        self._jobs = EnvironmentJobs(config, self._view, self.alerts, self.metrics)
        self.tracer = make_tracer(config, self.metrics, self.alerts, redactor.mask)
        """The program stops it, together with the other exporters."""
        self._retries = Retries(config.retries, random.random)
        self._coalescing_groups: Groups[Any] = Groups()
        self._handlers: WeakSet[Handler] = WeakSet()  # earlier ones have requests in flight
        self._handler = self._make_handler(config)
        limits = connection_policy(config)
        self._max_connections = limits.max_connections
        self._server = CallerServer(self._handler, self._access.guard, limits, self.metrics.registry, self.alerts)
        self._status = self._make_status_reader(config)
        self.reload = SharedRuns(self._reload_once)
        """Reads the keys and the watched files again. Returns the first fault, or None."""
        setting = f"environments.{self.name}.listen" if self.name else "listen"
        self.listening = Listening(setting, config.listen)
        """The listeners for callers. They must be open before `start`."""
        self._state = "starting"

    def _make_status_reader(self, config: EnvironmentConfig) -> EnvironmentStatusReader:
        return EnvironmentStatusReader(
            name=config.name,
            upstream=self._upstream,
            gate=self._view,
            max_waiting=config.gate.max_waiting,
            key_status=self.key_status,
            recent=self._recent,
            alerts=self.alerts,
            caller_connections=lambda: self._server.open_connections,
            max_connections=self._max_connections,
            jobs=self._jobs.status,
            redact=self._redactor,
            usage=None if self._usage is None else partial(self._usage.today, config.usage_name),
        )

    def _make_handler(self, config: EnvironmentConfig) -> Handler:
        usage, authorizer = self._usage, self._access.authorizer
        observers: list[Observer] = [self.metrics.requests.observe]
        if usage is not None and authorizer is not None:
            observers.append(authorizer.give_back)
        services = Services(
            tracer=self.tracer,
            redact=self._redactor,
            origin=config.dial.origin,
            guard=self._access.guard,
            scopes=ScopeTable(config.scopes),
            page_costs=self._pages.costs,
            upload_pages=self._pages.uploads,
            waiting_room=self._room,
            body_budget=self._upstream.bodies,
            client=self._upstream.client,
            keys=self.key_manager,
            retries=self._retries,
            metrics=self.metrics,
            unexpected=self._unexpected,
            observers=tuple(observers),
            coalescing_groups=self._coalescing_groups,
            authorizer=authorizer,
            ledger=None if usage is None else usage.ledger,
            jobs=self._jobs.endpoint(config, authorizer),
        )
        handler = Handler(config.handler, services, self._loop)
        self._jobs.use(config, services)
        self._handlers.add(handler)
        return handler

    async def start(self) -> None:
        """Begins to serve the opened sockets."""
        if self._state_file is not None and not self.gate_handover.has_predecessor:
            self._state_file.restore()
        report_settings(self._log, self.alerts, self._config, self._max_connections, {})
        if self._fleet is not None:
            await self._fleet.start()
        await self._pages.start()
        await self._jobs.start()
        report_exposed_files(self.alerts, self._secret_files)
        self.key_manager.start()
        self._recent.start()
        self._upstream.health.start()
        self._access.start()
        if self.tracer is not None:
            self.tracer.start()
        await self.listening.serve(self._server, self._access.tls)
        self._state = "ready"
        if self._state_file is not None:
            self._state_file.start()

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
        change_upstream = self._upstream.prepare(old, new)

        def apply() -> None:
            self._config = new
            if new.dial.egress_proxy is not None:
                self._redactor.add(new.dial.egress_proxy.secrets())
            apply_access()
            change_upstream()
            self._retries.change_policy(new.retries)
            self._pages.change(new)
            self.key_manager.change_policy(_key_policy(new), self._upstream.key_probe(new))
            self._handler = self._make_handler(new)
            connections = connection_policy(new)
            self._max_connections = connections.max_connections
            self._server.change(self._handler, connections)
            self._status = self._make_status_reader(new)
            (self._fleet or self._room).change_policy(new.gate)
            report_settings(self._log, self.alerts, new, self._max_connections, old.permissive_settings)

        return apply

    # --- the end ----------------------------------------------------------------------------------

    async def finish(self, timeout_s: float) -> None:
        """Serves the requests that are here and the next ones of their connections, for at most `timeout_s`."""
        for handler in self._handlers:
            handler.drain()
        await asyncio.gather(self._server.finish(timeout_s), self._jobs.drain(timeout_s))

    def announce_drain(self) -> None:
        """Ends readiness, and serves on."""
        self._state = "draining"

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains for at most `drain_timeout_s`, then closes everything and saves the state file."""
        self._state = "draining"
        self._log.info("draining", in_flight=self._view.in_flight, waiting=self._view.waiting)
        for handler in self._handlers:
            handler.drain()
        await self.listening.close()
        self._room.close()
        await self.key_manager.stop()
        await self._access.stop()
        cut_off, _ = await asyncio.gather(self._server.drain(drain_timeout_s), self._jobs.drain(drain_timeout_s))
        await self._jobs.stop()
        if self._fleet is not None:
            await self._fleet.stop()
        self._pages.close()
        self._upstream.close()
        self._recent.stop()
        if self._state_file is not None:
            self._state_file.stop()
        self._log.info("stopped", cut_off=cut_off)

    def budget_of(self, caller: str) -> int | None:
        """Returns the caller's daily budget; None: it has none."""
        return self._access.budget_of(caller)

    def key_status(self) -> KeysStatus:
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
        if self._state != "ready":
            return self._state
        return None if self._fleet is None else self._fleet.not_ready_reason()

    def gauges(self) -> dict[str, float]:
        """Returns the values of the metrics that are read when they are scraped, by name."""
        return self._status.gauges(self._loop.time(), ready=self.not_ready_reason() is None)


def _key_policy(config: EnvironmentConfig) -> KeyManagerPolicy:
    return KeyManagerPolicy(config.keyring, config.key_max_age_s, config.handler.log_fields)
