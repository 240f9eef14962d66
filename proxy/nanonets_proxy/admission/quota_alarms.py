"""Alarms about a quota that is used up, or that has shrunk: the sentences, and how often they come."""

import math
import time
from collections.abc import Callable
from typing import Final

from nanonets_proxy.core.ratelimit.news import QuotaChanged, QuotaUsedUp
from nanonets_proxy.core.ratelimit.quota_watch import Accepted, QuotaChange
from nanonets_proxy.core.status.state import duration
from nanonets_proxy.telemetry.alerts import Alerts

REPEATED_AFTER_S: Final = 3600.0
_MAX_REMEMBERED: Final = 1024
_ADVICE: Final = {
    QuotaChange.SHORT: "look for another client of this key or account; a second alarm will tell the cause",
    QuotaChange.SHARED: (
        "find the other client: a second instance, or a service without the proxy; if you know none, rotate the key"
    ),
    QuotaChange.LOWERED: (
        "ask Nanonets about the limit, and look for a client that takes the same part all the time"
    ),
}
_ADVICE_USED_UP: Final = (
    "wait, or ask Nanonets for a higher quota; the proxy tests by itself whether the quota is available again"
)
_ADVICE_SHORT_HINT: Final = (
    "raise max_wait if callers can wait that long, or ask Nanonets for a higher quota; the proxy tests by itself "
    "whether the quota is available again"
)


def quota_alarms(
    alerts: Alerts, unit_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic
) -> Callable[[QuotaChanged | QuotaUsedUp], None]:
    """Returns the function that reports quotas.

    It reports each kind of news of a scope at most once an hour: with a short `max_wait`, the limit of each minute
    is used up for longer. A hint of more than an hour is a kind of its own, so that no short one hides it.
    `unit_of` returns the unit of a scope's limit: requests or pages.
    """
    reported: dict[tuple[str, QuotaChange | bool], float] = {}

    def report(news: QuotaChanged | QuotaUsedUp) -> None:
        is_short = isinstance(news, QuotaUsedUp) and 0 < (news.retry_after_s or 0) <= REPEATED_AFTER_S
        key = (news.scope, is_short if isinstance(news, QuotaUsedUp) else news.finding.change)
        now_s = clock()
        known_s = reported.pop(key, -math.inf)
        if now_s < known_s + REPEATED_AFTER_S:
            reported[key] = known_s
            return
        reported[key] = now_s
        if len(reported) > _MAX_REMEMBERED:
            del reported[next(iter(reported))]
        if isinstance(news, QuotaUsedUp):
            alerts.report(
                "quota_used_up",
                _ADVICE_SHORT_HINT if is_short else _ADVICE_USED_UP,
                about=news.scope,
                log_always=True,
                scope=news.scope,
                retry_after_s=news.retry_after_s,
                sentence=_used_up(news),
            )
            return
        alarm = f"quota_{news.finding.change.value}"
        alerts.report(
            "quota_alarm",
            _ADVICE[news.finding.change],
            kind=alarm,
            about=news.scope,
            log_always=True,
            alarm=alarm,
            scope=news.scope,
            sentence=_sentence(news, unit_of(news.scope)),
        )

    return report


def _used_up(news: QuotaUsedUp) -> str:
    lasting = "" if not news.retry_after_s else f" for {duration(news.retry_after_s)}"
    return (
        f"Nanonets says that the quota of the scope {news.scope} is used up{lasting}: callers get its 429 at once, "
        f"and the next test may come in {duration(news.probe_in_s)}."
    )


def _sentence(news: QuotaChanged, unit: str) -> str:
    finding = news.finding
    usual = f"at least {_units(finding.usual, finding.since[-1])}"
    last = f"{_units(finding.since[-1], finding.since[-1])} {unit} in {finding.since[-1].seconds:g} s"
    match finding.change:
        case QuotaChange.SHORT:
            return (
                f"Nanonets accepted only {last} in the scope {news.scope} before it refused one, and {usual} until "
                "now: another client seems to use the quota, or the limit was lowered."
            )
        case QuotaChange.SHARED:
            before = f"{_units(finding.since[-2], finding.since[-1])} and then {last}"
            return (
                f"Another client uses the quota of the scope {news.scope}: Nanonets accepted {before}, and {usual} "
                "until now."
            )
        case QuotaChange.LOWERED:
            return (
                f"The limit of the scope {news.scope} seems to be lower: Nanonets accepts about {last}, and "
                f"{usual} before."
            )


def _units(accepted: Accepted, as_of: Accepted) -> str:
    """Returns the units in the time of another closure."""
    return f"{accepted.rate * as_of.seconds:,.0f}"
