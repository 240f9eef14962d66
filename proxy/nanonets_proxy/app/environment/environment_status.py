"""Reads the status and the gauges of one environment from its components."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from nanonets_proxy.app.environment.gate_view import GateView
from nanonets_proxy.app.environment.upstream import Upstream
from nanonets_proxy.core.status.document import (
    CallerUsage,
    EnvironmentStatus,
    JobsStatus,
    KeysStatus,
    Problem,
    Usage,
)
from nanonets_proxy.core.status.state import StateFacts, state_of
from nanonets_proxy.core.status.text import MAX_REASON_CHARS, MAX_SENTENCE_CHARS, shown
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.recent_requests import RecentRequests

_JUST_S: Final = 10


@dataclass(frozen=True, slots=True)
class EnvironmentStatusReader:
    """The components that the status tells about."""

    name: str
    upstream: Upstream
    gate: GateView
    max_waiting: int
    key_status: Callable[[], KeysStatus]
    recent: RecentRequests
    alerts: Alerts
    caller_connections: Callable[[], int]
    max_connections: int
    jobs: Callable[[], JobsStatus | None]
    redact: Callable[[bytes], bytes]
    usage: Callable[[int], tuple[CallerUsage, ...]] | None = None
    """Takes the largest number of callers to return, and returns their usage today. None: there is no ledger."""

    def read(self, phase: str, most: int, now_s: float) -> EnvironmentStatus:
        """Returns the status, with lists of at most `most` items. `phase` is the environment's own state."""
        gate = self.gate.status(self.max_waiting, most, now_s)
        keys = _bounded(self.key_status())
        latest, failure = self.recent.ring.latest(), self.recent.errors.newest_failure()
        policy = self.upstream.bodies.policy
        return EnvironmentStatus(
            name=self.name,
            upstream=self.upstream.name,
            state=state_of(
                StateFacts(
                    phase,
                    gate,
                    keys,
                    latest,
                    failure,
                    retry=self.recent.ring.newest_retry,
                    queue_full=self.recent.ring.newest_full,
                    last_failure=self.recent.errors.last_failure(self.recent.ring.good, now_s),
                    upstream=self.upstream.health.finding,
                    lag_s=self.upstream.health.lag_s,
                    full=self._full(),
                )
            ),
            gate=gate,
            keys=keys,
            requests=self.recent.ring.counts(),
            problems=self._problems(most, now_s),
            caller_connections=Usage(self.caller_connections(), self.max_connections),
            idle_upstream_connections=self.upstream.pool.idle,
            body_memory_bytes=Usage(self.upstream.bodies.memory_bytes, policy.memory_total_bytes),
            body_spool_bytes=Usage(self.upstream.bodies.spool_bytes, policy.spool_total_bytes),
            usage=self._usage(most),
            jobs=self.jobs(),
        )

    def gauges(self, now_s: float, *, ready: bool) -> dict[str, float]:
        """Returns the values of the metrics that are read when they are scraped, by name."""
        return {
            **self.gate.gauges(now_s),
            "nanonets_proxy_idle_upstream_connections": self.upstream.pool.idle,
            "nanonets_proxy_upstream_connections_opened": self.upstream.pool.opened,
            "nanonets_proxy_body_memory_bytes": self.upstream.bodies.memory_bytes,
            "nanonets_proxy_body_spool_bytes": self.upstream.bodies.spool_bytes,
            "nanonets_proxy_caller_connections": self.caller_connections(),
            "nanonets_proxy_ready": float(ready),
        }

    def _full(self) -> str:
        """Returns the limit of all callers together that new connections have just met."""
        for alert in self.alerts.to_json():
            if alert["event"] == "connections_rejected" and alert["age_s"] < _JUST_S:
                limit = str(alert["limit"])
                if limit in ("max_connections", "open_files"):
                    return f"{limit} ({alert['value']})"
        return ""

    def _usage(self, most: int) -> tuple[CallerUsage, ...] | None:
        if self.usage is None:
            return None
        return tuple(CallerUsage(shown(each.caller), each.requests, each.pages) for each in self.usage(most))

    def _problems(self, most: int, now_s: float) -> tuple[Problem, ...]:
        alerts = [
            Problem(
                kind=alert["event"],
                times=alert["times"],
                age_s=alert["age_s"],
                is_alert=True,
                caller="",
                request_id="",
                advice=shown(alert["advice"], MAX_SENTENCE_CHARS),
                sentence=shown(alert.get("sentence", ""), MAX_SENTENCE_CHARS),
                what=shown(str(alert.get("what") or "")),
                reason=self._reason(alert),
            )
            for alert in self.alerts.to_json()
        ]
        return (*alerts, *self.recent.errors.problems(now_s))[:most]

    def _reason(self, alert: Mapping[str, Any]) -> str:
        texts = [str(alert[name]).removesuffix(".") for name in ("error", "reason") if alert.get(name)]
        if start := alert.get("start"):
            texts.append(f"the response to {alert['route']} began with {start}")
        if texts and (path := alert.get("path")) and path not in texts[0]:
            texts.insert(0, path)
        # The log masks each line. These texts do not pass through it, and others may have written them.
        masked = self.redact(": ".join(texts).encode("utf-8", "replace"))
        return shown(masked.decode("utf-8", "replace"), MAX_REASON_CHARS)


def _bounded(status: KeysStatus) -> KeysStatus:
    return replace(
        status,
        warnings=tuple(shown(warning, MAX_SENTENCE_CHARS) for warning in status.warnings),
        source_fault=None if status.source_fault is None else shown(status.source_fault, MAX_SENTENCE_CHARS),
    )
