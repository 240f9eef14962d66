"""The keyring's shell: reads the source, watches it, holds requests, tells what happens. It decides nothing.

One reading at a time: everybody who wants one while it goes on shares it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import (
    FoundKey,
    KeyEvent,
    KeyEventKind,
    KeyHistory,
    KeyringState,
    KeyUse,
    KeyVerdict,
    KeyWarning,
)
from nanonets_proxy.core.keys.keyring import Keyring, KeyringPolicy
from nanonets_proxy.keys.change_watch import ChangeWatch
from nanonets_proxy.keys.daemon_thread import in_daemon_thread
from nanonets_proxy.keys.source import KeySource
from nanonets_proxy.telemetry.key_status import KeyMetrics, KeyStatus, ShownKey

READ_IN_GAP_EVERY_S: Final = 0.5
PROBE_AGAIN_S: Final = 2.0
_LOOK_AT_AGE_EVERY_S: Final = 24 * 3600.0

_REFUSED_STATES: Final = {
    KeyEventKind.CANDIDATE_REJECTED: "candidate",
    KeyEventKind.ACTIVE_REJECTED: "active",
    KeyEventKind.PREVIOUS_REJECTED: "previous",
}

_REFUSED: Final = KeyVerdict.REJECTED  # as an attribute of its class it costs a call at each look, in Python 3.11

Probe = Callable[[ApiKey], Awaitable[KeyVerdict]]


@dataclass(frozen=True, slots=True)
class KeyManagerPolicy:
    """`max_age_s` 0: no key is too old. `log_fields`: what each event carries."""

    ring: KeyringPolicy
    max_age_s: float
    log_fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeyManagerServices:
    """`redact` takes what must never be shown from now on; `probe` asks the upstream about a candidate."""

    redact: Callable[[Iterable[bytes]], None]
    registry: CollectorRegistry
    probe: Probe | None = None


class KeyManager:
    """Has the keys of one environment. `start()`, then `stop()`."""

    def __init__(
        self, source: KeySource, found: tuple[FoundKey, ...], policy: KeyManagerPolicy, services: KeyManagerServices
    ) -> None:
        """`found` is the first reading of `source`."""
        self._source = source
        self._policy = policy
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(**policy.log_fields)
        self._ring = Keyring(policy.ring)
        self.choose_fast = self._ring.choose_fast
        """The key to go with for a request that was refused with none; None: ask `choose`."""
        self.has_usable_key = self._ring.has_usable_key
        """Whether requests may go; otherwise they `wait_for_key`."""
        self._metrics = KeyMetrics(services.registry, self.status)
        self._waiters: set[asyncio.Future[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._fault: str | None = None
        self._has_served = False
        self._closed = False
        self._take_in(found, on_demand=False)

    # --- for requests -------------------------------------------------------------------------

    async def wait_for_key(self, history: KeyHistory, now_s: float, deadline_s: float) -> float:
        """Gives the instant at which the request may go: `now_s`, but in a gap; `deadline_s` at the latest."""
        while not self._closed and now_s < deadline_s:
            until_s = self._ring.hold_until_s(history, now_s)
            if until_s is None:
                break
            await self._next_change(min(until_s, deadline_s) - now_s)
            now_s = self._loop.time()
        return now_s

    def choose(self, history: KeyHistory, deadline_s: float) -> KeyUse | None:
        """The key to go with; None, which is told before `deadline_s` only: `wait_for_key` first."""
        now_s = self._loop.time()
        return self._ring.choose(history, now_s, may_hold=now_s < deadline_s and not self._closed)

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None) -> bool:
        """Ends a use. Whether its answer goes to the caller; otherwise the request goes again. Only a refusal needs
        `history`, where it is noted."""
        now_s = self._loop.time()
        events = self._ring.settle(use, verdict, now_s, history)
        if events:
            self._tell(events)
        if verdict is not _REFUSED or history is None:
            return True
        if self._ring.wants_reading:
            self._read_soon()
        return self._ring.is_final(use, history, now_s)

    # --- for operators ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Of the key that serves."""
        return self._ring.best.key.name

    async def reload(self) -> str | None:
        """Reads the source now. Gives the sentence that says why it could not be read."""
        await self._read(on_demand=True)
        if self._fault is None:
            head = self._ring.head
            self._log.info(
                "reloaded", key=head.key.name, fingerprint=head.key.fingerprint(), state=head.state.value
            )
        else:
            self._log.error("reload_failed", reason=self._fault, kept=self.name)
        return self._fault

    def status(self) -> KeyStatus:
        wall_now_s = time.time()
        warnings = self._warnings()
        return KeyStatus(
            source=self._source.name,
            state=self._ring.state(self._loop.time()).value,
            keys=tuple(
                ShownKey(r.key.name, r.key.fingerprint(), r.state.value, max(0.0, wall_now_s - r.created_at_s))
                for r in self._ring.records
            ),
            warnings=tuple(warning.value for warning in warnings),
            fault=self._fault,
            candidate_refused=KeyWarning.CANDIDATE_REJECTED in warnings,
        )

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        # Opened before the source is read again, so that no change falls in between.
        watch = self._source.watch()
        self._tasks = [
            self._loop.create_task(self._follow(watch)),
            self._loop.create_task(self._mind_the_gap()),
            self._loop.create_task(self._mind_the_age()),
        ]
        if self._services.probe is not None:
            self._tasks.append(self._loop.create_task(self._try_candidates(self._services.probe)))

    async def stop(self) -> None:
        """Nobody is held any more; what is read by now is all."""
        self._closed = True
        self._wake()
        tasks = [*self._tasks, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, watch: ChangeWatch) -> None:
        with contextlib.closing(watch):
            await self._read()
            while True:
                await watch.wait()
                await self._read()

    async def _mind_the_gap(self) -> None:
        """A source that is only asked now and then is asked often while no key works."""
        while True:
            await self._next_change(None)
            while self._ring.state(self._loop.time()) is KeyringState.HOLDING:
                await asyncio.sleep(READ_IN_GAP_EVERY_S)
                await self._read()

    async def _mind_the_age(self) -> None:
        while True:
            if KeyWarning.OLD in self._warnings():
                best = self._ring.best
                age_days = (time.time() - best.created_at_s) / 86400
                self._log.warning("key_old", key=best.key.name, age_days=round(age_days, 1))
            await asyncio.sleep(_LOOK_AT_AGE_EVERY_S)

    async def _try_candidates(self, probe: Probe) -> None:
        told = None
        while True:
            use = self._ring.choose_candidate()
            if use is None:
                await self._next_change(None)
                continue
            verdict = await probe(use.record.key)
            self._tell(self._ring.settle(use, verdict, self._loop.time()))
            if verdict is KeyVerdict.UNKNOWN:
                if told is not use.record:
                    # With a wrong key_probe it would stay a candidate for ever: somebody has to know.
                    told = use.record
                    self._log.warning("key_probe_undecided", key=use.record.key.name)
                await self._next_change(PROBE_AGAIN_S)

    # --- reading ------------------------------------------------------------------------------

    def _read_soon(self) -> None:
        """Shares the reading that is under way."""
        if self._reading is None or self._reading.done():
            self._reading = self._loop.create_task(self._read_once(on_demand=False))

    async def _read(self, *, on_demand: bool = False) -> None:
        """A reading that begins now: one that is under way may have begun before the change."""
        while self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)
        self._reading = self._loop.create_task(self._read_once(on_demand=on_demand))
        await asyncio.shield(self._reading)

    async def _read_once(self, *, on_demand: bool) -> None:
        try:
            found = await in_daemon_thread(self._source.read)
        except KeyUnusable as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a store's library comes up with, the old key serves on
            # Its text is left out: it may quote what was read.
            self._failed(f"the API key of {self._source.name} cannot be had ({type(error).__name__})")
        else:
            if self._fault is not None:
                self._fault = None
                self._log.info("key_source_works_again", source=self._source.name)
            self._take_in(found, on_demand=on_demand)
        self._wake()

    def _failed(self, sentence: str) -> None:
        self._ring.unread()
        self._metrics.source_failures.inc()
        if sentence != self._fault:
            self._fault = sentence
            self._log.error("key_source_failed", reason=sentence, kept=self.name)

    def _take_in(self, found: tuple[FoundKey, ...], *, on_demand: bool) -> None:
        for item in found:
            self._services.redact(item.key.secrets())
        self._tell(self._ring.read(found, self._loop.time(), on_demand=on_demand))

    # --- telling ------------------------------------------------------------------------------

    def _warnings(self) -> list[KeyWarning]:
        return self._ring.warnings(wall_now_s=time.time(), max_age_s=self._policy.max_age_s)

    def _tell(self, events: Iterable[KeyEvent]) -> None:
        for event in events:
            key, kind = event.record.key, event.kind
            if (state := _REFUSED_STATES.get(kind)) is not None:
                self._metrics.refusals.labels(state).inc()
            if kind is KeyEventKind.ACTIVATED:
                self._metrics.rotations.inc(self._has_served)
                self._has_served = True
            is_bad = kind not in (KeyEventKind.ACTIVATED, KeyEventKind.CANDIDATE_FOUND)
            log = self._log.warning if is_bad else self._log.info
            log(kind.value, key=key.name, fingerprint=key.fingerprint())
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _next_change(self, timeout_s: float | None) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout_s is None else self._loop.call_later(timeout_s, _finish, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
