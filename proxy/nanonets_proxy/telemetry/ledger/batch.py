"""What the event loop hands over to the thread that writes the usage ledger."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from nanonets_proxy.core.usage.rollups import Series

Sums = dict[tuple[Series, int], list[int]]
"""By series and hour: attempts, requests, request bytes, response bytes, pages. They may be negative."""
ROW_WIDTH: Final = 6


@dataclass(slots=True)
class Batch:
    """Rows to write, all of one process."""

    rows: dict[Series, list[int]] = field(default_factory=dict)
    """The values of the rows of each series, one row after another, for attempts that have ended.

    A row has `ROW_WIDTH` values: the second of the sending, number, 1 for a request's first attempt, request and
    response bytes, pages. One list of numbers takes a third of the memory of a tuple for each row, is nothing for
    Python's garbage collection, and can be added up by series without a loop in Python.
    """
    running: dict[Series, list[int]] = field(default_factory=dict)
    """Rows for attempts that still run."""
    ended: list[tuple[int, int]] = field(default_factory=list)
    """Second and number of the attempts that ran in an earlier batch, and run no more."""
    corrections: Sums = field(default_factory=dict)
    """What to add to the sums of the rows: less for the series of each attempt of `ended`."""

    @property
    def row_count(self) -> int:
        return sum(map(len, chain(self.rows.values(), self.running.values()))) // ROW_WIDTH
