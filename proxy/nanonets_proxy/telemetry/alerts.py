"""Reports faults to operators: a log event, a counter and an alert of `/readyz`, all three bounded.

Each request of a flood may have the same fault. So the log has at most one event a minute for each fault, with the
number of occurrences since the last event.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter

_LOG_INTERVAL_S: Final = 60.0
_SHOWN_S: Final = 600.0
_MOST_SHOWN: Final = 5
"""How many alerts of one event and kind are shown, each about something else."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as it was logged. `times`: how often the fault occurred since it was logged before."""

    event: str
    kind: str
    fields: Mapping[str, Any]
    advice: str
    times: int


@dataclass(slots=True)
class _Known:
    fields: Mapping[str, Any]
    advice: str
    logged_at_s: float
    at_s: float = 0.0
    total: int = 0
    unlogged: int = 0
    is_lasting: bool = False


class Alerts:
    """The alerts of one environment. `log_fields` are fields of each log event."""

    def __init__(
        self,
        registry: CollectorRegistry,
        log_fields: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = structlog.get_logger(**(log_fields or {}))
        self._clock = clock
        self._alerts: dict[tuple[str, str, str], _Known] = {}
        self._subscriber: Callable[[Alert], None] | None = None
        self._total = Counter(
            "nanonets_proxy_alerts",
            "Faults that an operator can fix, by log event; the log has each event at most once a minute.",
            ["event", "kind"],
            registry=registry,
        )

    def report(
        self,
        event: str,
        advice: str,
        *,
        kind: str = "",
        about: str = "",
        lasting: bool = False,
        log_always: bool = False,
        **fields: Any,
    ) -> bool:
        """Counts a fault, and logs it unless the same was logged within the last minute. Returns whether it did.

        `event` and `kind` come from a small set, and together name the fault. The latest alerts that are `about`
        different callers or scopes are shown beside each other. `advice` is a sentence for the operator. `/readyz`
        shows a `lasting` fault until `end`, any other for ten minutes. `log_always` is for a fault that cannot be
        frequent.
        """
        now_s = self._clock()
        self._total.labels(event, kind).inc()
        alert = self._alerts.get((event, kind, about))
        if alert is None:
            self._make_room(event, kind)
            alert = self._alerts[event, kind, about] = _Known(fields, advice, now_s - _LOG_INTERVAL_S)
        alert.fields, alert.advice, alert.at_s, alert.is_lasting = fields, advice, now_s, lasting
        alert.total += 1
        alert.unlogged += 1
        is_logged = log_always or now_s - alert.logged_at_s >= _LOG_INTERVAL_S
        if is_logged:
            self._log.warning(event, **fields, times=alert.unlogged, advice=advice)
            if self._subscriber is not None:
                self._subscriber(Alert(event, kind, fields, advice, alert.unlogged))
            alert.logged_at_s, alert.unlogged = now_s, 0
        return is_logged

    def _make_room(self, event: str, kind: str) -> None:
        same = [key for key in self._alerts if key[:2] == (event, kind)]
        if len(same) >= _MOST_SHOWN:
            del self._alerts[min(same, key=lambda key: self._alerts[key].at_s)]

    def end(self, event: str, kind: str | None = None) -> None:
        """Notes that a fault is over, of one kind or of all kinds (None): it is no longer shown."""
        for (known, known_kind, _), alert in self._alerts.items():
            if known == event and kind in (None, known_kind):
                alert.is_lasting, alert.at_s = False, -_SHOWN_S

    def subscribe(self, subscriber: Callable[[Alert], None]) -> None:
        """Passes each alert on to `subscriber` as it is logged, and first those that are already known."""
        self._subscriber = subscriber
        for (event, kind, _), known in self._alerts.items():
            subscriber(Alert(event, kind, known.fields, known.advice, known.total))

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the recent and the lasting alerts, the newest first."""
        now_s = self._clock()
        shown = [
            (alert.at_s, {"event": event, **alert.fields, "times": alert.total, "advice": alert.advice})
            for (event, _, _), alert in self._alerts.items()
            if alert.is_lasting or now_s - alert.at_s < _SHOWN_S
        ]
        shown.sort(key=lambda pair: pair[0], reverse=True)
        return [{**fields, "age_s": round(now_s - at_s)} for at_s, fields in shown]
