"""Renders the metrics for a scraper, as OpenMetrics or in Prometheus' own text format.

Two thousand series take 20 to 50 ms. So they are rendered in slices, between which the event loop serves callers.
All of them show one instant, because their values are collected before.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from nanonets_proxy.core.http.grammar import MOST_LIST_ITEMS

_OPENMETRICS: Final = "application/openmetrics-text"
_EOF: Final = b"# EOF\n"
_SLICE: Final = 20


async def render(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Returns the content type and the text. `accept` is the scraper's Accept field; "" if it has none."""
    families = list(registry.collect())
    wants_openmetrics = _accepts_openmetrics(accept)
    encode = openmetrics.generate_latest if wants_openmetrics else generate_latest
    parts = []
    for part in _slices(families):
        parts.append(_without_head(encode(part), part))
        await asyncio.sleep(0)
    if wants_openmetrics:
        return openmetrics.CONTENT_TYPE_LATEST, b"".join((*parts, _EOF))
    return CONTENT_TYPE_PLAIN_0_0_4, b"".join(parts)


def _accepts_openmetrics(accept: str) -> bool:
    for choice in accept.lower().split(",", MOST_LIST_ITEMS)[:MOST_LIST_ITEMS]:
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        if media_type == _OPENMETRICS and "q=0" not in parameters:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Slice(Collector):
    """Some samples of one family."""

    family: Metric
    is_first: bool

    def collect(self) -> Iterator[Metric]:
        yield self.family


def _slices(families: Iterable[Metric]) -> Iterator[_Slice]:
    for family in families:
        samples = family.samples
        for start in range(0, len(samples) or 1, _SLICE):
            part = Metric(family.name, family.documentation, family.type, family.unit)
            part.samples = samples[start : start + _SLICE]
            yield _Slice(part, is_first=start == 0)


def _without_head(text: bytes, part: _Slice) -> bytes:
    """Removes the end mark, and from all slices but the first the lines that describe the family."""
    text = text.removesuffix(_EOF)
    if not part.is_first:
        while text.startswith(b"#"):
            text = text.partition(b"\n")[2]
    return text
