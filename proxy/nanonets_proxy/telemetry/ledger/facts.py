"""Reads from the usage ledger what the alarms judge (core/usage/alarms.py)."""

from collections.abc import Iterator
from typing import Final

from nanonets_proxy.core.usage.alarms import PAST_DAYS, FirstCall, LimitOf, Spending, UsageFacts, Volume
from nanonets_proxy.core.usage.rollups import DAY_H, DAY_S, DIMENSIONS, EARLIEST_H, HOUR_S, cut_of
from nanonets_proxy.telemetry.ledger.reader import LedgerReader

# The highest hours of the past: of any, and of those at most an hour from this time of day.
_PEAKS: Final = (
    "coalesce(sum(n) FILTER (WHERE hour = ?1), 0), coalesce(max(n) FILTER (WHERE hour < ?1), 0), "
    "coalesce(max(n) FILTER (WHERE hour < ?1 AND (hour - ?1 + 2400001) % 24 <= 2), 0)"
)
_CUT: Final = {name: cut_of([name]) for name in DIMENSIONS}
_HOURLY: Final = (
    "SELECT period AS hour, {subject} AS subject, sum({counted}) AS n FROM rollup CROSS JOIN series "
    "ON series.id = rollup.series WHERE hours = 1 AND rollup.cut = {cut} AND period BETWEEN ?1 - ?2 AND ?1 "
    "AND environment = ?3 "
)


def read_facts(ledger: LedgerReader, environment: str, now_s: float, limit_of: LimitOf) -> UsageFacts:
    """Returns the facts of the current hour. Raises sqlite3.Error."""
    now_h = int(now_s) // HOUR_S
    (first_h,) = ledger.execute(
        "SELECT min(first_hour) FROM series WHERE cut = 0 AND environment = ? AND first_hour >= ?",
        *(environment, EARLIEST_H),
    ).fetchone()
    if first_h is None:
        return UsageFacts(age_h=0)
    (rejections, most_rejections, _) = ledger.execute(
        f"WITH hourly AS ({_HOURLY.format(subject=0, counted='attempts', cut=_CUT['status'])} "  # noqa: S608  # our own constants
        f"AND status IN ('401', '403') GROUP BY 1) SELECT {_PEAKS} FROM hourly",
        *(now_h, PAST_DAYS * DAY_H, environment),
    ).fetchone()
    return UsageFacts(
        age_h=now_h - first_h,
        volumes=[
            volume
            for dimension, subject in (("caller", "caller"), ("route", "route"), ("environment", "''"))
            for volume in _volumes(ledger, environment, now_h, dimension, subject)
        ],
        rejections=rejections,
        peak_rejections=most_rejections,
        new_callers=[
            caller
            for (caller,) in ledger.execute(
                "SELECT caller FROM series WHERE cut = ? AND environment = ? AND first_hour = ?",
                *(_CUT["caller"], environment, now_h),
            )
        ],
        first_calls=[
            FirstCall(caller, method, route)
            for caller, method, route, _ in ledger.execute(
                # With min(), the other columns are those of its row (sqlite.org/lang_select.html#bareagg).
                "SELECT caller, method, route, min(first_hour) FROM series WHERE cut = 0 AND environment = ? "
                "AND first_hour >= ? AND (method = 'DELETE' OR method = 'POST' AND route LIKE '%/Train') "
                "GROUP BY caller, method HAVING min(first_hour) = ?",
                *(environment, EARLIEST_H, now_h),
            )
        ],
        spendings=list(_spendings(ledger, environment, now_s, limit_of)),
        hours_left=(DAY_S - now_s % DAY_S) / HOUR_S,
    )


def _volumes(ledger: LedgerReader, environment: str, now_h: int, dimension: str, subject: str) -> Iterator[Volume]:
    for name, current, peak, peak_at_this_time, first_h in ledger.execute(
        f"WITH hourly AS ({_HOURLY.format(subject=subject, counted='requests', cut=_CUT[dimension])} "  # noqa: S608  # our own constants
        f"GROUP BY 1, 2) SELECT subject, {_PEAKS}, (SELECT coalesce(min(first_hour), ?1) FROM series "
        f"WHERE cut = {_CUT[dimension]} AND environment = ?3 AND {subject} = subject "
        f"AND first_hour >= {EARLIEST_H}) FROM hourly GROUP BY subject",
        *(now_h, PAST_DAYS * DAY_H, environment),
    ):
        yield Volume(dimension if name else "hour", name, current, peak, peak_at_this_time, now_h - first_h)


def _spendings(ledger: LedgerReader, environment: str, now_s: float, limit_of: LimitOf) -> Iterator[Spending]:
    now_h = int(now_s) // HOUR_S
    passed = now_s % HOUR_S / HOUR_S
    for caller, used, current, before, usual, usual_before, usual_later in ledger.execute(
        "SELECT caller, coalesce(sum(requests) FILTER (WHERE period >= ?2), 0), "
        "coalesce(sum(requests) FILTER (WHERE period = ?1), 0), "
        "coalesce(sum(requests) FILTER (WHERE period = ?1 - 1), 0), "
        "coalesce(sum(requests) FILTER (WHERE period < ?2 AND period % 24 = ?1 % 24), 0), "
        "coalesce(sum(requests) FILTER (WHERE period < ?2 AND period % 24 = (?1 - 1) % 24), 0), "
        "coalesce(sum(requests) FILTER (WHERE period < ?2 AND period % 24 > ?1 % 24), 0) "
        "FROM rollup CROSS JOIN series ON series.id = rollup.series "
        "WHERE hours = 1 AND rollup.cut = ?4 AND period BETWEEN ?2 - ?5 AND ?1 AND environment = ?3 "
        "GROUP BY caller",
        *(now_h, now_h - now_h % DAY_H, environment, _CUT["caller"], PAST_DAYS * DAY_H),
    ):
        limit = limit_of(caller)
        if limit is not None:
            usual_rest = usual_later + usual * (1 - passed)
            usual_last_hour = usual * passed + usual_before * (1 - passed)
            usual_hours = usual_rest / usual_last_hour if usual_last_hour else None
            yield Spending(caller, used, limit, round(current + before * (1 - passed)), usual_hours)
