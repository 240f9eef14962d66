"""Compares the generated pages of docs/reference with the program, and other pages with them."""

import re
from pathlib import Path

import pytest

from reference import metrics_page

ROOT = Path(__file__).parents[2]
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in sorted(ROOT.glob("docs/**/*.md"))}
_METRIC = re.compile(r"\bnanonets_proxy_[a-z_]*[a-z]\b(?!/|\.)")
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
