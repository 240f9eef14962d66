"""The command `usage`: shows a view of the usage ledger as a table, CSV or JSON."""

import csv
import io
import json
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from pathlib import Path
from typing import Any, Final

from nanonets_proxy.core.status.text import printable
from nanonets_proxy.core.usage.rollups import DAY_H, DIMENSIONS, HOUR_S, Counts
from nanonets_proxy.telemetry.ledger.reader import open_ledger

_PERIODS: Final = {"hour": 1, "day": DAY_H}
VIEWS: Final = (*DIMENSIONS, *_PERIODS)
_AGO: Final = re.compile(r"([0-9]{1,6})(h|d|w)", re.ASCII)
_HOURS: Final = {"h": 1, "d": 24, "w": 168}
_COLUMNS: Final = Counts._fields
# A spreadsheet takes a cell with such a beginning for a formula (owasp.org/www-community/attacks/CSV_Injection).
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_TIMES: Final = tuple(f" {hour:02}:00" for hour in range(DAY_H))


def hour_of(text: str, now_s: float, *, is_end: bool = False) -> int:
    """Returns the hour since 1970 that `7d`, `36h`, `2w` (ago), `now` or a date and time (ISO 8601) lie in.

    `is_end`: the first hour that does not begin earlier. A time without an offset is UTC. Raises ValueError with a
    sentence that says what is wrong.
    """
    if ago := _AGO.fullmatch(text):
        at_s = now_s - int(ago[1]) * _HOURS[ago[2]] * HOUR_S
    elif text == "now":
        at_s = now_s
    else:
        try:
            time = datetime.fromisoformat(text)
            at_s = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r} is not a time: write 7d, 36h, 2026-11-28 or 2026-11-28T18:00") from None
    return int(-(-at_s // HOUR_S) if is_end else at_s // HOUR_S)


@dataclass(frozen=True, slots=True)
class View:
    """The sums of one view, from the hour `since_h` to the hour `until_h` - 1."""

    by: str
    since_h: int
    until_h: int
    rows: Sequence[tuple[str, Counts]]

    @property
    def total(self) -> Counts:
        return reduce(Counts.plus, (counts for _, counts in self.rows), Counts())


def read_view(path: Path, by: str, since_h: int, until_h: int, environment: str | None) -> View:
    """Reads a view. Raises DatabaseFault."""
    with open_ledger(path) as ledger:
        if by in _PERIODS:
            hours = _PERIODS[by]
            name = _day if hours == DAY_H else _hour
            rows = ledger.by_period(hours, since_h, until_h, environment, name)
        else:
            rows = [(key, counts) for (key,), counts in ledger.by([by], since_h, until_h, environment)]
    return View(by, since_h, until_h, rows)


def as_json(view: View) -> str:
    """Returns `{"by", "since", "until", "rows": [{<by>, "attempts", …}], "total": {…}}`; times are UTC."""
    document: dict[str, Any] = {
        "by": view.by,
        "since": _time(view.since_h, "%Y-%m-%dT%H:%M:%SZ"),
        "until": _time(view.until_h, "%Y-%m-%dT%H:%M:%SZ"),
        "rows": [{view.by: key, **counts._asdict()} for key, counts in view.rows],
        "total": view.total._asdict(),
    }
    return json.dumps(document, indent=2)


def as_csv(view: View) -> str:
    """Returns lines of RFC 4180 with a header, without the total.

    A text that a spreadsheet would run as a formula begins with `'`: callers may choose their names.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([view.by, *_COLUMNS])
    writer.writerows([f"'{key}" if _FORMULA.match(key) else key, *counts] for key, counts in view.rows)
    return file.getvalue().removesuffix("\r\n")


def as_table(view: View) -> str:
    """Returns the view for people, with its range and its total."""
    span = span_text(view.since_h, view.until_h)
    if not view.rows:
        return f"No attempts from {span}."
    lines = [
        (view.by, *(name.replace("_", " ") for name in _COLUMNS)),
        *((printable(key) or "-", *map("{:,}".format, counts)) for key, counts in view.rows),
        ("total", *map("{:,}".format, view.total)),
    ]
    return f"{span}\n{in_columns(lines, right=range(1, len(lines[0])))}"


def span_text(since_h: int, until_h: int) -> str:
    """Returns the range from one hour to another, for people."""
    return f"{_time(since_h, '%Y-%m-%d %H:%M')} to {_time(until_h, '%Y-%m-%d %H:%M')} UTC"


def in_columns(lines: Sequence[Sequence[str]], right: Container[int]) -> str:
    """Returns lines of text with aligned columns. `right`: the numbers of the columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{'>' if number in right else '<'}{width}}}" for number, width in enumerate(widths))
    return "\n".join(form.format(*line).rstrip() for line in lines)


def _hour(hour: int) -> str:
    return _day(hour // DAY_H) + _TIMES[hour % DAY_H]


@cache
def _day(day: int) -> str:
    return _time(day * DAY_H, "%Y-%m-%d")


def _time(hour: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(hour * HOUR_S, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"hour {hour}"
