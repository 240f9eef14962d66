"""Judges the usage of every environment each few minutes, and reports alarms as alerts."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nanonets_proxy.aio.daemon_thread import NoThread, in_daemon_thread
from nanonets_proxy.core.usage.alarms import Alarm, LimitOf, alarms_of
from nanonets_proxy.core.usage.rollups import DAY_S, HOUR_S
from nanonets_proxy.telemetry.alerts import Alerts

_INTERVAL_S: Final = 300.0
_ADVICE: Final = {
    "new_caller": "if nobody knows this caller, reject it by allow_from or caller_tokens",
    "first_call": "if it is not meant to, deny it by policy",
    "rejections": "check the key, and the permissions that it has at Nanonets",
    "budget": "raise its daily_budget, or have it send less",
}
_VOLUME_ADVICE: Final = "find out whether this is wanted: nanonets-proxy usage --since 36h --by hour"


@dataclass(frozen=True, slots=True)
class Watched:
    """One environment: where its alarms go, and the daily budgets of its callers."""

    alerts: Alerts
    limit_of: LimitOf


class UsageAlarms:
    """Call `start()`, then `stop()`."""

    def __init__(self, path: Path, environments: Mapping[str, Watched]) -> None:
        self._path = path
        self._environments = environments
        self._reported: dict[tuple[str, ...], int] = {}
        self._judged_hour: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            # The next judgement also covers the end of an hour that this one misses.
            with contextlib.suppress(NoThread):
                await self.judge(time.time())

    async def judge(self, now_s: float) -> None:
        """Reports the alarms of the current hour that are not reported yet, and those of an hour that is over."""
        hour = int(now_s) // HOUR_S
        if self._judged_hour is not None and self._judged_hour < hour:
            # Its last minutes came after the last judgement.
            await self._judge(hour * HOUR_S - 1.0)
        self._judged_hour = hour
        await self._judge(now_s)
        # Callers may choose their names, so those of earlier hours must not stay.
        oldest = {"budget": int(now_s) // DAY_S}
        self._reported = {key: at for key, at in self._reported.items() if at >= oldest.get(key[1], hour)}

    async def _judge(self, now_s: float) -> None:
        for name, alarm in await in_daemon_thread(lambda: self._read(now_s)):
            period = int(now_s) // (DAY_S if alarm.kind == "budget" else HOUR_S)
            key = (name, alarm.kind, alarm.subject, alarm.method)
            if self._reported.get(key) != period:
                self._reported[key] = period
                self._report(self._environments[name].alerts, alarm)

    def _read(self, now_s: float) -> list[tuple[str, Alarm]]:
        """Returns the alarms by environment; none if the ledger cannot be read, which its writer reports."""
        from nanonets_proxy.telemetry.database_fault import DatabaseFault  # imported here: see UsageLedger
        from nanonets_proxy.telemetry.ledger.facts import read_facts
        from nanonets_proxy.telemetry.ledger.reader import open_ledger

        try:
            with open_ledger(self._path) as ledger:
                return [
                    (name, alarm)
                    for name, watched in self._environments.items()
                    for alarm in alarms_of(read_facts(ledger, name, now_s, watched.limit_of))
                ]
        except DatabaseFault:
            return []

    @staticmethod
    def _report(alerts: Alerts, alarm: Alarm) -> None:
        advice = _ADVICE.get(alarm.kind, _VOLUME_ADVICE)
        alerts.report(
            "usage_alarm",
            advice,
            kind=alarm.kind,
            about=f"{alarm.subject} {alarm.method}",
            log_always=True,
            alarm=alarm.kind,
            subject=alarm.subject,
            sentence=alarm.sentence,
        )
