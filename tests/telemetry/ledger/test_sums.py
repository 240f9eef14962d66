"""The sums of every view equal the rows, whatever the clock and the time zone do."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from nanonets_proxy.core.usage.rollups import DIMENSIONS
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger
from nanonets_proxy.telemetry.ledger.reader import open_ledger
from support.telemetry.usage_ledger import record, rows, series_of, sums

NOW_S = 1_795_000_000

attempts = st.fixed_dictionaries(
    {
        "clock_s": st.one_of(
            st.integers(-7200, 7200),
            st.integers(-400 * 86_400, 400 * 86_400),
            st.just(-NOW_S),  # a machine without a clock boots in 1970
        ),
        "environment": st.sampled_from(["", "eu"]),
        "caller": st.sampled_from(["billing", "10.0.0.7"]),
        "method": st.sampled_from(["GET", "POST", "BREW"]),
        "route": st.sampled_from(["/api/v4/workflows", "/other"]),
        "status": st.sampled_from([0, 200, 401, 429, 500]),
        "bytes": st.integers(0, 2**40),
        "pages": st.sampled_from([0, 1, 25]),
        "is_first": st.booleans(),
        "is_long": st.booleans(),
        "ends": st.booleans(),
    }
)
ranges = st.tuples(st.integers(-24 * 500, 24 * 500), st.integers(0, 24 * 1000))


@contextmanager
def time_zone(name: str) -> Iterator[None]:
    with mock.patch.dict(os.environ, TZ=name):
        time.tzset()
        yield
    time.tzset()


@settings(max_examples=30)
@given(
    st.lists(attempts, max_size=12),
    ranges,
    st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"]),
)
def test_every_view_equals_the_sum_of_its_rows(
    entries: list[dict[str, Any]], window: tuple[int, int], zone: str
) -> None:
    def use(ledger: Ledger) -> None:
        for entry in entries:
            with mock.patch.object(time, "time", return_value=NOW_S + entry["clock_s"]):
                labels = (entry["environment"], entry["caller"], entry["method"], entry["route"])
                attempt = Attempt(ledger, labels)
                attempt.requests = int(entry["is_first"])
                attempt.begin()
                if entry["is_long"]:
                    ledger._hand_over(closing=True)  # as if it had run for long
                if entry["ends"]:
                    attempt.end_with(entry["status"], entry["bytes"], entry["bytes"] // 2, entry["pages"])

    since_h = NOW_S // 3600 + window[0]
    until_h = since_h + window[1]
    with tempfile.TemporaryDirectory() as folder, time_zone(zone):
        path = Path(folder) / "ledger"
        record(path, use)
        assert len(rows(path)) == len(entries)
        with open_ledger(path) as reader:
            for first, last in ((since_h, until_h), (0, 2**40)):
                assert dict(reader.by(DIMENSIONS, first, last)) == sums(path, series_of, first, last)
                for name in DIMENSIONS:
                    expected = sums(path, lambda row, name=name: (row[name],), first, last)
                    assert dict(reader.by([name], first, last)) == expected
                for hours in (1, 24):
                    expected = sums(path, lambda row, hours=hours: row["at_s"] // 3600 // hours, first, last)
                    assert dict(reader.by_period(hours, first, last, None, int)) == expected
                expected = sums(
                    path, lambda row: (row["caller"],) if row["environment"] == "eu" else None, first, last
                )
                expected.pop(None, None)
                assert dict(reader.by(["caller"], first, last, "eu")) == expected
