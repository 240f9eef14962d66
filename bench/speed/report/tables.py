"""Formats the figures as Markdown tables, which are also legible in a terminal."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from speed.cases import CASES
from speed.peers import DIRECT, OURS, PEERS
from speed.report.targets import TARGETS
from speed.results import Samples
from speed.stages import GROWTH, LIMITED

_PEERS: Final = (OURS, DIRECT, *(peer.name for peer in PEERS if peer.name != OURS))
_CPU_CASES: Final = frozenset(("small_get", "post_1k", "post_64k", "get_64k", "small_get_tls"))
_Row = list[str]


def table(rows: Sequence[_Row]) -> str:
    """Formats a table. The first row is the heading; columns of numbers are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = [all(_is_number(row[column]) for row in rows[1:]) for column in range(len(rows[0]))]

    def line(cells: _Row) -> str:
        padded = zip(cells, widths, numbers, strict=True)
        return "| " + " | ".join(c.rjust(w) if number else c.ljust(w) for c, w, number in padded) + " |"

    dashes = [("-" * (w + 1) + ":") if number else "-" * (w + 2) for w, number in zip(widths, numbers, strict=True)]
    return "\n".join([line(rows[0]), "|" + "|".join(dashes) + "|", *map(line, rows[1:])]) + "\n"


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[0-9.e+-]+|\N{EN DASH}|", cell) is not None


def _figure(figure: float | None) -> str:
    if figure is None:
        return "\N{EN DASH}"
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def targets(samples: Samples) -> list[_Row]:
    rows = []
    for target in TARGETS:
        figure = target.figure(samples)
        if figure is not None or samples.failed(target.case, _PEERS):
            bound = f"{'>=' if target.at_least else '<='} {target.bound:g} {target.unit}".rstrip()
            met = figure is not None and target.met(figure)
            verdict = "met" if met else "**missed**" if figure is not None else "**not measured**"
            rows.append([target.title, bound, _figure(figure), verdict])
    return [["measure", "target", "measured", ""], *rows] if rows else []


def cpu(samples: Samples) -> list[_Row]:
    columns = [(case.title, case.name, "cpu_us") for case in CASES if case.name in _CPU_CASES]
    return _by_peer(samples, "CPU per request, us", columns)


def latency(samples: Samples) -> list[_Row]:
    columns = [
        (f"{title}, {quantity.removesuffix('_ms')}", case, quantity)
        for case, title in (("latency_200", "200/s"), ("latency_1000", "1,000/s"))
        for quantity in ("p50_ms", "p99_ms")
    ]
    return _by_peer(samples, "latency, ms", columns)


def bulk(samples: Samples) -> list[_Row]:
    columns = [
        (f"{name}: {title}", f"bulk_{direction}", quantity)
        for direction, name in (("up", "upload"), ("down", "download"))
        for quantity, title in (("mib_per_s", "MiB/s"), ("cpu_s", "CPU, s"), ("growth_mib", "growth, MiB"))
    ]
    return _by_peer(samples, "1 GiB", columns)


def size(samples: Samples) -> list[_Row]:
    columns = [
        ("start to first response, s", "start", "ready_s"),
        ("resident memory then, MiB", "start", "resident_mib"),
        ("bytes per idle connection", "idle", "bytes_each"),
    ]
    return _by_peer(samples, "", columns)


def growth(samples: Samples) -> list[_Row]:
    rows = []
    for case in CASES:
        for peer in _PEERS:
            points = samples.points(case.name, peer)
            if points or (case.stage in {GROWTH, LIMITED} and samples.failed(case.name, [peer])):
                text = ", ".join(f"{number:,}: {_figure(figure)}" for number, figure in points.items())
                rows.append([case.title, peer, text or _figure(None)])
    return [["CPU per request, us, by", "", "count: us"], *rows] if rows else []


def failures(samples: Samples) -> list[_Row]:
    """Has one row for each case and peer that failed, with the last reason."""
    rows = []
    for case in CASES:
        for peer, reasons in samples.failures.get(case.name, {}).items():
            last = [*reasons.values()][-1].replace("|", "\\|")
            rows.append([case.title, peer, ", ".join(reasons), last])
    return [["failed measure", "peer", "rounds", "last reason"], *rows] if rows else []


def _by_peer(samples: Samples, corner: str, columns: Sequence[tuple[str, str, str]]) -> list[_Row]:
    """Returns the medians. A column is its title, case and quantity. Omits peers and columns that did not run."""

    def ran(peer: str, case: str, quantity: str) -> bool:
        return bool(samples.all(case, peer, quantity)) or samples.failed(case, [peer])

    kept = [column for column in columns if any(ran(peer, *column[1:]) for peer in _PEERS)]
    rows = [
        [peer, *(_figure(samples.median(case, peer, quantity)) for _, case, quantity in kept)]
        for peer in _PEERS
        if any(ran(peer, *column[1:]) for column in kept)
    ]
    return [[corner, *(title for title, _, _ in kept)], *rows] if rows else []


def all_tables(samples: Samples) -> Iterator[str]:
    for make in (targets, cpu, latency, bulk, size, growth, failures):
        if rows := make(samples):
            yield table(rows)
