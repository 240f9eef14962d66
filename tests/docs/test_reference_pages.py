"""Compares the generated pages of docs/reference with the program, and other pages with them."""

import re
from pathlib import Path

import pytest

from nanonets_proxy.core.keys.key_records import KeyEventKind
from reference import documented_events, emitted_events, metrics_page

ROOT = Path(__file__).parents[2]
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in sorted(ROOT.glob("docs/**/*.md"))}
_METRIC = re.compile(r"\bnanonets_proxy_[a-z_]*[a-z]\b(?![/:]|\.)")
_NAME = re.compile(r"`(\w+)`")
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


async def test_the_page_of_metrics_lists_all_metrics() -> None:
    assert metrics_page.PAGE.read_text() == await metrics_page.render(), "run `make metrics-page`"


@pytest.mark.parametrize("page", PAGES)
async def test_every_metric_that_a_page_names_exists(page: str) -> None:
    known = {row.name for row in await metrics_page.rows()}
    named = {_SUFFIX.sub("", name) for name in _METRIC.findall(PAGES[page])}
    assert named <= known


async def test_every_metric_is_explained() -> None:
    for row in await metrics_page.rows():
        assert len(row.documentation) > 10, row


COMPUTED = {"request", "library", "job_queued", "job_started", "job_ended", *(kind.value for kind in KeyEventKind)}
"""Events whose fields no call names; the tests that run them check the fields (`support/log_capture.py`)."""


def test_the_page_of_log_events_lists_the_events_that_the_source_emits() -> None:
    assert emitted_events.find().keys() == documented_events.EVENTS.keys()


@pytest.mark.parametrize("name", documented_events.EVENTS)
def test_the_page_of_log_events_lists_the_fields_and_levels_of(name: str) -> None:
    emitted, documented = emitted_events.find()[name], documented_events.EVENTS[name]
    assert emitted.levels <= documented.levels
    assert emitted.fields <= documented.fields
    if not emitted.has_more_fields:
        assert emitted.levels == documented.levels
        assert emitted.fields == documented.fields - {"exception"}
    else:
        assert name in COMPUTED or emitted.fields


@pytest.mark.parametrize("page", PAGES)
def test_every_event_in_a_table_of_a_page_exists(page: str) -> None:
    tables = re.findall(r"^\| event \|.*\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE)
    first_cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    named = {name for cell in first_cells for name in _NAME.findall(cell)}
    assert named <= documented_events.EVENTS.keys()
