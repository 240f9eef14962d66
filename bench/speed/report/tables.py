"""Formats the figures as Markdown tables, which are also legible in a terminal."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from speed.cases import CASES
from speed.peers import DIRECT, OURS, PEERS
from speed.report.targets import TARGETS
from speed.results import Samples
from speed.stages import PLAIN, TLS

_PEERS: Final = (OURS, DIRECT, *(peer.name for peer in PEERS if peer.name != OURS))
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
        if figure is not None:
            bound = f"{'>=' if target.at_least else '<='} {target.bound:g} {target.unit}".rstrip()
            rows.append([target.title, bound, _figure(figure), "met" if target.met(figure) else "**missed**"])
    return [["measure", "target", "measured", ""], *rows] if rows else []


def cpu(samples: Samples) -> list[_Row]:
    cases = [case for case in CASES if case.stage in {PLAIN, TLS} and samples.median(case.name, OURS, "cpu_us")]
    columns: list[_Column] = [(case.title, _of(case.name, "cpu_us")) for case in cases]
    return _by_peer(samples, "CPU per request, us", columns)


def latency(samples: Samples) -> list[_Row]:
    columns: list[_Column] = [
        (f"{title}, {quantity.removesuffix('_ms')}", _of(case, quantity))
        for case, title in (("latency_200", "200/s"), ("latency_1000", "1,000/s"))
        for quantity in ("p50_ms", "p99_ms")
    ]
    return _by_peer(samples, "latency, ms", columns)


def bulk(samples: Samples) -> list[_Row]:
    columns: list[_Column] = [
        (f"{name}: {title}", _of(f"bulk_{direction}", quantity))
        for direction, name in (("up", "upload"), ("down", "download"))
        for quantity, title in (("mib_per_s", "MiB/s"), ("cpu_s", "CPU, s"), ("growth_mib", "growth, MiB"))
    ]
    return _by_peer(samples, "1 GiB", columns)


def size(samples: Samples) -> list[_Row]:
    columns: list[_Column] = [
        ("start to first response, s", _of("start", "ready_s")),
        ("resident memory then, MiB", _of("start", "resident_mib")),
        ("bytes per idle connection", _of("idle", "bytes_each")),
    ]
    return _by_peer(samples, "", columns)


def growth(samples: Samples) -> list[_Row]:
    rows = []
    for case in CASES:
        for peer in _PEERS:
            points = samples.points(case.name, peer)
            if points:
                text = ", ".join(f"{number:,}: {_figure(figure)}" for number, figure in points.items())
                rows.append([case.title, peer, text])
    return [["CPU per request, us, by", "", "count: us"], *rows] if rows else []


_Column = tuple[str, Callable[[Samples, str], float | None]]


def _of(case: str, quantity: str) -> Callable[[Samples, str], float | None]:
    return lambda samples, peer: samples.median(case, peer, quantity)


def _by_peer(samples: Samples, corner: str, columns: Sequence[_Column]) -> list[_Row]:
    """Omits peers and columns without figures."""
    kept = [(title, of) for title, of in columns if any(of(samples, peer) is not None for peer in _PEERS)]
    found = {peer: [of(samples, peer) for _, of in kept] for peer in _PEERS}
    rows = [
        [peer, *map(_figure, figures)] for peer, figures in found.items() if any(f is not None for f in figures)
    ]
    return [[corner, *(title for title, _ in kept)], *rows] if rows else []


def all_tables(samples: Samples) -> Iterator[str]:
    for make in (targets, cpu, latency, bulk, size, growth):
        if rows := make(samples):
            yield table(rows)
