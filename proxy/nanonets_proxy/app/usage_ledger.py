"""The usage ledger of the process: its alerts, and what it knows at start."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from nanonets_proxy.core.status.document import CallerUsage
from nanonets_proxy.core.usage.rollups import DAY_S
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.ledger.ledger import Ledger, LedgerStatus
from nanonets_proxy.telemetry.ledger.policy import LedgerPolicy

_CONSEQUENCE: Final = "; requests are served as before, but not counted"
_BUDGET_ADVICE: Final = (
    "daily_budget counts from 0 again: accept that, or restart the proxy once the file can be read or is restored"
)
# The machine's clock may be wrong at start, so the budgets also get the last days of the file.
_RESTORED_DAYS: Final = 2


class UsageLedger:
    """Make it on the event loop, before the environments. Set `alerts` before the loop runs again."""

    def __init__(self, policy: LedgerPolicy) -> None:
        # Imported here, so that SQLite takes memory only if there is a ledger.
        from nanonets_proxy.telemetry.database_fault import DatabaseFault
        from nanonets_proxy.telemetry.ledger.file import NoLedger
        from nanonets_proxy.telemetry.ledger.reader import open_ledger
        from nanonets_proxy.telemetry.ledger.writer import LedgerWriter

        self.path = policy.path
        self._log = structlog.get_logger()
        self.alerts: Alerts | None = None
        self._unrestored: str | None = None
        self._requests_by_day: dict[str, dict[int, dict[str, int]]] = {}
        try:
            with open_ledger(policy.path) as reader:
                today, last = int(time.time()) // DAY_S, reader.last_day()
                first = min(today, last) - _RESTORED_DAYS
                for day, (name, caller), requests in reader.requests_by_day(("environment", "caller"), first, last):
                    self._requests_by_day.setdefault(name, {}).setdefault(day, {})[caller] = requests
        except NoLedger:
            pass
        except DatabaseFault as fault:
            self._unrestored = str(fault)
        self.ledger = Ledger(
            lambda reports: LedgerWriter(policy, reports), self._on_stop, self._on_resume, self._on_damage
        )

    def requests_by_day(self, environment: str) -> Mapping[int, Mapping[str, int]]:
        """Returns how many requests callers had sent before the start, by day since 1970 and caller."""
        return self._requests_by_day.get(environment, {})

    def today(self, environment: str, most: int) -> tuple[CallerUsage, ...]:
        """Returns what the callers with the most requests have used today, as of a few seconds ago."""
        return tuple(CallerUsage(*caller) for caller in self.ledger.usage_today(environment)[:most])

    def status(self) -> LedgerStatus:
        """Returns whether the ledger counts attempts, and if not, why."""
        return self.ledger.status()

    def report_unrestored(self, alerts: Alerts) -> None:
        """Reports that a daily budget does not know the requests before the start, if that is so."""
        if self._unrestored is not None:
            alerts.report("budget_not_restored", _BUDGET_ADVICE, lasting=True, reason=self._unrestored)

    def _on_stop(self, fault: str, cure: str) -> None:
        if self.alerts is not None:
            advice = cure + _CONSEQUENCE
            self.alerts.report("ledger_stopped", advice, lasting=True, path=str(self.path), reason=fault)

    def _on_resume(self, lost: int) -> None:
        if self.alerts is not None:
            self.alerts.end("ledger_stopped")
        self._log.info("ledger_resumed", path=str(self.path), lost=lost)

    def _on_damage(self, aside: Path, reason: str) -> None:
        if self.alerts is not None:
            advice = (
                f"the damaged file is now {aside}, and a new one has begun: look for the cause, such as a bad disk"
            )
            self.alerts.report("ledger_put_aside", advice, path=str(self.path), aside=str(aside), reason=reason)

    def close(self) -> None:
        """Writes what is left, within a few seconds. Logs how many attempts it could not write."""
        lost = self.ledger.close()
        if lost:
            reason = self.status().fault or "cannot be written fast enough"
            self._log.error("ledger_not_written", path=str(self.path), lost=lost, reason=reason)
