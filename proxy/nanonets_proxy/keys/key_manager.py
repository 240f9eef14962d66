"""The key manager: reads and watches the source of the keys, makes requests wait, and logs events.

The keyring (`core/keys/keyring.py`) makes every decision. At most one reading of the source runs at a time.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.aio.daemon_thread import in_daemon_thread
from nanonets_proxy.aio.events import ChangeSignal
from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.core.keys.key_records import (
    FoundKey,
    KeyEvent,
    KeyHistory,
    KeyUse,
    KeyVerdict,
    KeyWarning,
    Ruling,
)
from nanonets_proxy.core.keys.keyring import Keyring
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy
from nanonets_proxy.core.status.document import KeyEntry, KeysStatus
from nanonets_proxy.keys.change_watch import ChangeWatch
from nanonets_proxy.keys.key_age import CHECK_EVERY_S, KeyAgeAlarm
from nanonets_proxy.keys.key_events import KeyEventReporter
from nanonets_proxy.keys.key_probing import KeyProbing, Probe
from nanonets_proxy.keys.source import KeySource, is_constant
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.key_metrics import KeyMetrics

REREAD_WHILE_HOLDING_S: Final = 0.5

# In Python 3.11 a lookup on the class costs a function call.
_REJECTED, _RELAY = KeyVerdict.REJECTED, Ruling.RELAY


@dataclass(frozen=True, slots=True)
class KeyManagerPolicy:
    """If `max_age_s` is 0, no key is too old. `log_fields` are added to each log event."""

    keyring: KeyringPolicy
    max_age_s: float
    log_fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeyManagerServices:
    """`redact` masks all forms of a key: `Redactor.for_source` returns it. `probe` tests a key upstream."""

    redact: Callable[[Iterable[bytes]], None]
    registry: CollectorRegistry
    alerts: Alerts
    probe: Probe


class KeyManager:
    """Manages the keys of one environment, from `start()` to `stop()`."""

    def __init__(
        self, source: KeySource, found: tuple[FoundKey, ...], policy: KeyManagerPolicy, services: KeyManagerServices
    ) -> None:
        """`found` is the first reading of `source`."""
        self._source = source
        self._policy = policy
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(**policy.log_fields)
        self._keyring = Keyring(self._keyring_policy())
        self._known = self._keyring.known
        self.choose_fast, self.accept_fast = self._keyring.choose_fast, self._keyring.accept_fast
        """As the methods of `Keyring`."""
        self.has_usable_key = self._keyring.has_usable_key
        """Returns whether requests may be sent at once; otherwise they call `wait_for_key`."""
        self.reason_of_401 = self._known.reason_of_401
        self._metrics = KeyMetrics(services.registry, self.status, self._known.is_candidate_rejected)
        self._reporter = KeyEventReporter(self._log, self._metrics, services.alerts)
        self._change = ChangeSignal()
        """Wakes the requests that wait: after each event, and after a reading that they wait for."""
        self._progress = ChangeSignal()
        """Wakes the background tasks: after each event, 401 and reading."""
        self._probing = KeyProbing(self._keyring, services.probe, self._progress, self._report, self._log)
        self._reading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._source_fault: str | None = None
        self._is_stopped = False
        self._take_reading(found, on_demand=False)

    def _keyring_policy(self) -> KeyringPolicy:
        # A key in the environment cannot change while the program runs, so no request waits for another key.
        can_change = not is_constant(self._source)
        return self._policy.keyring if can_change else replace(self._policy.keyring, hold_s=0.0)

    def change_policy(self, policy: KeyManagerPolicy, probe: Probe) -> None:
        """Applies another policy, and sends further probes with `probe`. The source and the keys stay."""
        self._policy = policy
        self._keyring.change_policy(self._keyring_policy())
        self._probing.use_probe(probe)

    # --- for requests -------------------------------------------------------------------------

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float:
        """Waits until the request may be sent, `deadline_s` at the latest, and returns that instant."""
        while not self._is_stopped and now_s < deadline_s:
            until_s = self._keyring.wait_until_s(history, now_s)
            if until_s is None:
                break
            await self._change.wait(min(until_s, deadline_s) - now_s)
            now_s = self._loop.time()
            self._tick(now_s)
        return now_s

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """Returns a use of the key to send with, or None before `deadline_s`: then call `wait_for_key` first."""
        now_s = self._loop.time()
        return self._keyring.choose(history, now_s, may_wait=now_s < deadline_s and not self._is_stopped)

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> Ruling:
        """Ends a use, notes a rejection in `history`, and returns what happens to the request."""
        now_s = self._loop.time()
        events = self._keyring.settle(use, verdict, now_s, history)
        if events:
            self._report(events)
        if verdict is not _REJECTED or history is None:
            return _RELAY
        if self._keyring.needs_reading:
            self._start_reading()
        self._progress.notify()
        return self._keyring.rule(use, history, now_s)

    async def wait_for_ruling(self, use: KeyUse, history: KeyHistory, deadline_s: float) -> Ruling:
        """Waits until it is known whether a 401 concerns the key, `deadline_s` at the latest.

        Returns RELAY or SEND_AGAIN.
        """
        while True:
            now_s = self._loop.time()
            self._tick(now_s)
            ruling = self._keyring.rule(use, history, now_s)
            if ruling is not Ruling.WAIT:
                return ruling
            if self._is_stopped:
                return Ruling.SEND_AGAIN  # then the waiting room rejects the request with a 503
            if now_s >= deadline_s:
                return _RELAY
            await self._change.wait(min(self._keyring.next_tick_s(now_s), deadline_s) - now_s)

    # --- for operators ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the serving key."""
        return self._known.serving_key.key.name

    async def reload(self) -> str | None:
        """Reads the source now. Returns a sentence that says why the reading failed, or None."""
        await self._read(on_demand=True)
        if self._source_fault is None:
            record = self._known.source_key
            self._log.info(
                "reloaded", key=record.key.name, fingerprint=record.key.fingerprint(), state=record.state.value
            )
        else:
            self._log.error("reload_failed", reason=self._source_fault, kept=self.name)
        return self._source_fault

    def status(self) -> KeysStatus:
        """Returns the public facts about the keys."""
        wall_now_s = time.time()
        warnings = self._warnings()
        return KeysStatus(
            source=self._source.name,
            state=self._keyring.state(self._loop.time()).value,
            is_rejected=self._known.is_doubted,
            keys=tuple(
                KeyEntry(r.key.name, r.key.fingerprint(), r.state.value, max(0, round(wall_now_s - r.created_at_s)))
                for r in self._known.records
            ),
            warnings=tuple([warning.value for warning in warnings] + self._known.mistakes()),
            source_fault=self._source_fault,
        )

    # --- background tasks ---------------------------------------------------------------------

    def start(self) -> None:
        # The watch must exist before the first reading, so that no change between the two is missed.
        watch = self._source.watch()
        self._tasks = [
            self._loop.create_task(self._follow_changes(watch)),
            self._loop.create_task(self._reread_while_holding()),
            self._loop.create_task(self._warn_about_age()),
            self._loop.create_task(self._probing.run()),
        ]

    async def stop(self) -> None:
        """Releases all waiting requests and ends all readings."""
        self._is_stopped = True
        self._change.notify()
        tasks = [*self._tasks, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_changes(self, watch: ChangeWatch) -> None:
        await self._read()
        while True:
            await watch.wait(failed=self._source_fault is not None)
            await self._read()

    async def _reread_while_holding(self) -> None:
        """Reads the source often while requests wait, because a store is otherwise read at long intervals."""
        while True:
            await self._progress.wait()
            while self._keyring.is_waiting(self._loop.time()):
                await asyncio.sleep(REREAD_WHILE_HOLDING_S)
                if self._keyring.is_waiting(self._loop.time()):
                    await self._read()
            self._tick(self._loop.time())

    async def _warn_about_age(self) -> None:
        alarm = KeyAgeAlarm(self._services.alerts)
        while True:
            if KeyWarning.OLD in self._warnings():
                record = self._known.serving_key
                age_s = time.time() - record.created_at_s
                alarm.report(record.key, age_s, self._policy.max_age_s, self._loop.time())
            await asyncio.sleep(CHECK_EVERY_S)

    # --- reading the source -------------------------------------------------------------------

    def _start_reading(self) -> None:
        """Starts a reading unless one is running."""
        if self._reading is None or self._reading.done():
            self._reading = self._loop.create_task(self._read_once(on_demand=False))

    async def _read(self, *, on_demand: bool = False) -> None:
        """Waits for a reading that begins now: a running one may have begun before the change."""
        while self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)
        self._reading = self._loop.create_task(self._read_once(on_demand=on_demand))
        await asyncio.shield(self._reading)

    async def _read_once(self, *, on_demand: bool) -> None:
        fault = None
        self._metrics.source_readings.inc()
        try:
            found = await in_daemon_thread(self._source.read)
        except KeyUnusable as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - a store's library may raise anything; the old key stays in use
            # The error's text is left out, since it may quote the secret.
            fault = f"the API key of {self._source.name} is unavailable ({type(error).__name__})"
        is_awaited = self._keyring.needs_reading
        if fault is not None:
            self._reading_failed(fault)
        else:
            if self._source_fault is not None:
                self._source_fault = None
                self._reporter.source_works_again(self._source.name)
            self._take_reading(found, on_demand=on_demand)
        if is_awaited:
            self._change.notify()
        self._progress.notify()

    def _reading_failed(self, sentence: str) -> None:
        self._keyring.reading_failed()
        self._metrics.source_failures.inc()
        if sentence != self._source_fault:
            self._source_fault = sentence
            self._log.error("key_source_failed", reason=sentence, kept=self.name)
            self._reporter.source_failed(sentence)

    def _take_reading(self, found: tuple[FoundKey, ...], *, on_demand: bool) -> None:
        for key in [*(record.key for record in self._known.records), *(item.key for item in found)]:
            self._services.redact(key.secrets())
        self._report(self._keyring.read(found, self._loop.time(), on_demand=on_demand))

    # --- reporting ----------------------------------------------------------------------------

    def _warnings(self) -> list[KeyWarning]:
        return self._known.warnings(wall_now_s=time.time(), max_age_s=self._policy.max_age_s)

    def _tick(self, now_s: float) -> None:
        if events := self._keyring.tick(now_s):
            self._report(events)

    def _report(self, events: Sequence[KeyEvent]) -> None:
        """Logs and counts the events. If there are any, wakes all waiting requests."""
        if events:
            self._reporter.report(events, self._keyring.state(self._loop.time()))
            self._change.notify()
        if not self._known.is_candidate_rejected():  # also after a reading without events: a return to the old key
            self._reporter.source_key_is_usable()
        self._progress.notify()
