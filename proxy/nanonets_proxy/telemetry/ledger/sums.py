"""Cuts a batch into chunks, and adds up its rows.

The writer's thread shares Python's lock with the event loop. Python takes the lock from a thread only after 5 ms.
So this thread gives it up after each chunk, and after each `_MOST_ADDED` sums.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

from nanonets_proxy.core.usage.rollups import HOUR_S, Series, cuts
from nanonets_proxy.telemetry.ledger.batch import ROW_WIDTH, Batch, Sums

MOST_IN_CHUNK: Final = 500
_MOST_ADDED: Final = 100

Chunk = dict[Series, list[int]]
"""Up to `MOST_IN_CHUNK` rows, as in `Batch`."""
CutSums = dict[tuple[int, Series, int], list[int]]
"""The sums of a batch by cut, series and hour."""
_Item = TypeVar("_Item")


def give_way(items: Iterable[_Item], every: int = _MOST_ADDED) -> Iterator[_Item]:
    """Yields the items, and gives up Python's lock after each `every` items."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % every == 0:
            time.sleep(0)


def chunks_of(rows: Mapping[Series, list[int]]) -> Iterator[Chunk]:
    """Yields the rows in chunks."""
    chunk: Chunk = {}
    room = most = MOST_IN_CHUNK * ROW_WIDTH
    for series, own in rows.items():
        first = 0
        while first < len(own):
            chunk[series] = part = own[first : first + room]
            first, room = first + len(part), room - len(part)
            if not room:
                yield chunk
                chunk, room = {}, most
    if chunk:
        yield chunk


def cut_sums(batch: Batch) -> CutSums:
    """Returns the sums of the rows and of the corrections."""
    totals: Sums = {key: list(sums) for key, sums in batch.corrections.items()}
    for chunk in give_way(chain(chunks_of(batch.rows), chunks_of(batch.running)), every=1):
        for series, rows in chunk.items():
            for hour, own in _by_hour(rows):
                columns = (own[column::ROW_WIDTH] for column in range(2, ROW_WIDTH))
                add(totals, (series, hour), [len(own) // ROW_WIDTH, *map(sum, columns)])
    found: CutSums = {}
    for (series, hour), sums in give_way(totals.items()):
        for cut, kept in cuts(series):
            add(found, (cut, kept, hour), sums)
    return found


def _by_hour(rows: list[int]) -> Iterable[tuple[int, list[int]]]:
    seconds = rows[::ROW_WIDTH]
    hour = min(seconds) // HOUR_S
    if hour == max(seconds) // HOUR_S:
        return [(hour, rows)]
    parts: dict[int, list[int]] = {}
    for first in range(0, len(rows), ROW_WIDTH):
        parts.setdefault(rows[first] // HOUR_S, []).extend(rows[first : first + ROW_WIDTH])
    return parts.items()


def add(table: dict[Any, list[int]], key: object, sums: Sequence[int]) -> None:
    """Adds sums to those of a key."""
    known = table.get(key)
    table[key] = list(sums) if known is None else [own + more for own, more in zip(known, sums, strict=True)]
