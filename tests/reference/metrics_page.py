"""Generates docs/reference/metrics.md from the metrics of a program. `make metrics-page` writes it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.metrics import MAX_SERIES
from nanonets_proxy.telemetry.scrape.request_metrics import BUCKETS_S, MOST_CALLERS
from support.proxy_harness import program

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"

_INTRO: Final = Path(__file__).with_name("metrics_intro.md")


class Row(NamedTuple):
    """One metric."""

    name: str
    type: str
    labels: tuple[str, ...]
    documentation: str


async def rows() -> list[Row]:
    """Returns the metrics of a program that uses every setting which adds metrics."""
    running = program(
        Origin("http", "127.0.0.1", 9),
        read_only=True,
        otlp_endpoint="http://localhost",
        otlp_metrics_endpoint="http://localhost",
        webhook_url="http://localhost/",
        jobs="jobs",
    )
    registries = [running.process_registry, *(environment.metrics.registry for environment in running.environments)]
    found = {row.name: row for registry in registries for row in _rows_of(registry)}
    return [found[name] for name in sorted(found)]


def _rows_of(registry: CollectorRegistry) -> Iterator[Row]:
    for collector in list(registry._collector_to_names):
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            yield Row(name, family.type, tuple(labels), family.documentation.rstrip("."))


async def render() -> str:
    intro = Template(_INTRO.read_text()).substitute(
        most_series=f"{MAX_SERIES:,}",
        most_callers=MOST_CALLERS,
        buckets=", ".join(f"{bound:g}" for bound in BUCKETS_S),
    )
    return "".join((intro, *_tables(await rows())))


def _tables(found: list[Row]) -> Iterator[str]:
    own = [row for row in found if row.name.startswith("nanonets_proxy")]
    yield "\n## Metrics of the proxy\n\n"
    yield from _table(own)
    yield "\n## Metrics of the process\n\n"
    yield "`prometheus-client` adds these metrics. Those of `process_` exist on Linux only.\n\n"
    yield from _table([row for row in found if row not in own])


def _table(found: list[Row]) -> Iterator[str]:
    yield "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    for row in found:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        yield f"| `{row.name}` | {row.type} | {labels} | {row.documentation} |\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(asyncio.run(render()))
