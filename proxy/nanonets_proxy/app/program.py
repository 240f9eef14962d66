"""The program that one process runs: its environments, and the admin listener that they share.

States of its end; the admin listener serves in all of them, and /livez responds with 200:
serving    /readyz says ready.
announced  After the first SIGTERM or SIGINT, for `drain_delay`: callers are served, and /readyz says draining.
draining   After the delay, or at once after POST /quitquitquit: no new connections, waiting requests get 503, and
           requests in flight may finish within `drain_timeout`. So may the first request of a new connection.
finishing  Another process has replaced this one (`process/restart.py`) and has the listeners. This one serves the
           requests that wait or are in flight, to their end. A signal drains.
stopped    All connections and the admin listener are closed. The process ends with 0, but not before a process that
           it has replaced, as long as that may drain.
In every state, a second signal ends the process at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog

from nanonets_proxy.admin.endpoints import ReloadResult, RestartResult
from nanonets_proxy.admin.server import AdminHandler, admin_connection_policy
from nanonets_proxy.app.clock_watch import ClockWatch
from nanonets_proxy.app.config import ServeConfig
from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.app.environment.faults import report_secret_flags
from nanonets_proxy.app.exporters import make_metrics_exporter, make_webhook
from nanonets_proxy.app.handover import Handover
from nanonets_proxy.app.listening import Listening
from nanonets_proxy.app.reloading import (
    PROGRAM_FIXED,
    ChangedSetting,
    NewSettings,
    ReadSettings,
    SettingsUnusable,
)
from nanonets_proxy.app.shared_runs import SharedRuns
from nanonets_proxy.app.shutdown import Shutdown
from nanonets_proxy.app.usage_alarms import UsageAlarms, Watched
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.server.inherited import InheritedSockets
from nanonets_proxy.server.listeners import ListenFailed, reject_unused
from nanonets_proxy.server.open_files import last_file, most_admin_connections, most_viewers, open_files_limit
from nanonets_proxy.server.server import CallerServer
from nanonets_proxy.telemetry.event_loop import EventLoopLag
from nanonets_proxy.telemetry.log_watch import LogWatch
from nanonets_proxy.telemetry.metrics import combined_registry, process_registry
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter

# For the requests of a replaced process: each may wait, and then take minutes. Only a stuck one takes as long.
_FINISH_S: Final = 1800.0
# For a scrape or a reload in progress. More would outlast what supervisors allow.
_ADMIN_STOP_S: Final = 1.0
_LEVELS_WITH_INFO: Final = ("debug", "info")
_MOST_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class SettingsReload:
    """How a reload reads the settings, and applies those of the log."""

    read: ReadSettings
    use_log: Callable[[ServeConfig], None]


class _Watch(Protocol):
    """Watches one thing beside the requests, or reports what others have seen."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Program:
    """Call `start()`, then `run_until_stopped()`."""

    def __init__(
        self,
        config: ServeConfig,
        environments: Sequence[Environment],
        shutdown: Shutdown,
        usage: UsageLedger | None = None,
        settings: SettingsReload | None = None,
        *,
        redactor: Redactor,
        log_writer: LineWriter,
    ) -> None:
        """`settings`: None if a reload reads no settings. `redactor` masks secrets in what operators see.

        Raises WebhookUnusable.
        """
        self._config = config
        self._settings = settings
        self._shutdown = shutdown
        self._log = structlog.get_logger()
        self.environments = environments
        self.usage = usage
        self.process_registry = process = process_registry()
        self.registry = combined_registry(
            process, {environment.name: environment.metrics.registry for environment in environments}
        )
        self.reload = SharedRuns(self._reload_once)
        """Reads the settings again, and the keys and the watched files of every environment."""
        self.restart: Callable[[], Awaitable[RestartResult]] = _no_restart
        """Replaces the process by a new one (`process/restart.py` sets it)."""
        guard, files, alerts = PeerGuard(config.admin_guard), open_files_limit(), environments[0].alerts
        self._admin_guard = guard
        self._admin_handler = AdminHandler(
            guard,
            self.registry,
            environments,
            self.reload,
            on_quit=shutdown.quit if config.admin_quit else None,
            alerts=alerts,
            restart=lambda: self.restart(),
            redact=redactor,
            most_viewers=most_viewers(files),
            tokens=config.admin_tokens,
        )
        self._admin = CallerServer(
            self._admin_handler,
            guard,
            admin_connection_policy(most_admin_connections(files), last_file(files)),
            process,
            alerts,
        )
        self.admin_listening = Listening("admin_listen", config.admin_listen)
        self.handover = Handover(environments, self.admin_listening)
        """Gives away all that the program serves, or takes it over."""
        self._webhook = make_webhook(config.webhook, environments, process, redactor)
        report_secret_flags(alerts, config.secret_flags)
        self._metrics_exporter = make_metrics_exporter(config.otlp_metrics, environments, process, redactor.mask)
        self._watches: list[_Watch] = [
            EventLoopLag(process),
            LogWatch(log_writer, process, alerts),
            ClockWatch(alerts),
        ]
        if self._webhook is not None:
            self._watches.append(self._webhook)
        if usage is not None:
            usage.alerts = alerts
            watched = {own.usage_name: Watched(own.alerts, own.budget_of) for own in environments}
            self._watches.append(UsageAlarms(usage.path, watched))

    def open(self, inherited: InheritedSockets | None = None) -> None:
        """Opens all sockets, or uses the inherited ones. Raises ListenFailed, and leaves no socket open then."""
        listening = self.handover.listening.values()
        try:
            for part in listening:
                part.open(inherited)
            if inherited is not None:
                reject_unused(inherited)
        except ListenFailed:
            for part in listening:
                part.abandon()
            raise

    async def start(self) -> None:
        """Serves the open sockets."""
        await self.admin_listening.serve(self._admin)
        for environment in self.environments:
            await environment.start()
        for watch in self._watches:
            watch.start()
        if self._metrics_exporter is not None:
            self._metrics_exporter.start()

    async def _reload_once(self) -> ReloadResult:
        fault, new = None, None
        if self._settings is not None and not self._shutdown.by:
            try:
                new = await self._settings.read(self._config)
                if not self._shutdown.by:
                    self._apply(new, self._settings.use_log)
            except SettingsUnusable as error:
                fault = f"the settings stay as they were: {error}"
                self._log.error("settings_not_reloaded", reason=str(error))
                advice, alerts = "correct the settings and reload again", self.environments[0].alerts
                alerts.report("reload_rejected", advice, lasting=True, log_always=True, reason=str(error))
        faults = [await environment.reload() for environment in self.environments]
        if new is None or fault is not None:
            return ReloadResult(fault, (), (), faults)
        applied, needs_restart = ([change.name for change in part] for part in (new.applied, new.needs_restart))
        return ReloadResult(None, applied, needs_restart, faults)

    def _apply(self, new: NewSettings, use_log: Callable[[ServeConfig], None]) -> None:
        """Applies the settings to all environments, or to none. Raises SettingsUnusable."""
        config = new.config
        logs_this = config.log_level in _LEVELS_WITH_INFO
        if new.applied:
            try:
                changes = [
                    environment.prepare_change(own)
                    for environment, own in zip(self.environments, config.environments, strict=True)
                ]
            except (OSError, ValueError) as error:
                raise SettingsUnusable(str(error)) from None
            if logs_this:
                use_log(config)
            for change in changes:
                change()
            self._admin_guard.change_policy(config.admin_guard)
            self._admin_handler.access.use(config.admin_tokens)
            self._admin.close_forbidden()
            old = self._config
            if (config.admin_guard, config.admin_tokens) != (old.admin_guard, old.admin_tokens):
                self._admin_handler.events.end_viewers()
            self._config = replace(config, **{name: getattr(self._config, name) for name in PROGRAM_FIXED})
        alerts = self.environments[0].alerts
        alerts.end("reload_rejected")
        needs_restart = [change.name for change in new.needs_restart]
        self._log.info("settings_reloaded", changed=_shown(new.applied), needs_restart=_shown(new.needs_restart))
        if new.applied and not logs_this:  # after the last event of its level, which says why no more follow
            use_log(config)
        if needs_restart:
            # The status shows no more than 400 characters.
            more = f" and {len(needs_restart) - _MOST_NAMED} more" if len(needs_restart) > _MOST_NAMED else ""
            advice = f"restart the proxy to apply {', '.join(needs_restart[:_MOST_NAMED])}{more}"
            alerts.report("restart_needed", advice, lasting=True, log_always=True, settings=needs_restart)
        else:
            alerts.end("restart_needed")

    @property
    def is_stopping(self) -> bool:
        """Whether the program has been asked to stop, or has been replaced."""
        return bool(self._shutdown.by)

    @property
    def has_sandbox(self) -> bool:
        return self._config.sandbox is not None

    def finish(self) -> None:
        """Ends the program once it has served what it has: another process has replaced it."""
        self._admin_handler.draining = True
        self._shutdown.finish()

    async def run_until_stopped(self) -> None:
        """Serves until the shutdown is requested, then delays the drain, and drains; or finishes."""
        stop = asyncio.create_task(self._shutdown.requested())
        replaced = asyncio.create_task(self._shutdown.replaced.wait())
        await asyncio.wait([stop, replaced], return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            self._admin_handler.events.close()
            finished = asyncio.create_task(self.handover.finish(_FINISH_S))
            await asyncio.wait([stop, finished], return_when=asyncio.FIRST_COMPLETED)
            if finished.done():
                stop.cancel()
                finished.result()
                await self.stop(0.0)
                return
            finished.cancel()
        replaced.cancel()
        delay_s = self._config.drain_delay_s
        self._log.info("stop_requested", by=self._shutdown.by, drain_delay_s=delay_s)
        for environment in self.environments:
            environment.announce_drain()
        await self._shutdown.delay(delay_s)
        ends_at = asyncio.get_running_loop().time() + self._config.drain_timeout_s + _ADMIN_STOP_S
        await self.stop(self._config.drain_timeout_s)
        await self.handover.outlast_predecessor(ends_at - asyncio.get_running_loop().time())

    async def stop(self, drain_timeout_s: float) -> None:
        """Drains all environments at the same time, then stops the admin listener."""
        await asyncio.gather(*(environment.stop(drain_timeout_s) for environment in self.environments))
        exporters = [environment.tracer for environment in self.environments] + [self._metrics_exporter]
        await asyncio.gather(*(exporter.stop() for exporter in exporters if exporter is not None))
        for watch in self._watches:
            watch.stop()
        if self.usage is not None:
            self.usage.close()
        await self.admin_listening.close()
        self._admin_handler.events.close()
        await self._admin.drain(_ADMIN_STOP_S)


async def _no_restart() -> RestartResult:
    return RestartResult("this program cannot restart itself", 0)


def _shown(changes: Sequence[ChangedSetting]) -> dict[str, dict[str, Any]]:
    return {change.name: {"old": change.old, "new": change.new} for change in changes}
