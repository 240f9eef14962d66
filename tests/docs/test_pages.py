"""Checks the pages that people read: their links, the modules that they name, and the diagram of the layers."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "proxy" / "nanonets_proxy"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GATE = ROOT / "docs" / "gate.md"

_CODE_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`([\w/]+(?:\.py|/))`")


def _prose(page: Path) -> str:
    return _CODE_BLOCK.sub("", page.read_text())


def _anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_prose(page)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in _anchors(target))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(_broken_links(page)) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, twice\n[a](#a-title-twice) [b](page.md) [c](#missing) [d](missing.md) [e](http://e)"
    )
    assert list(_broken_links(page)) == ["#missing", "missing.md"]


def test_the_index_lists_every_page() -> None:
    listed = set(_LINK.findall((ROOT / "docs" / "index.md").read_text()))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert pages - listed == {"index.md"}


def test_every_module_and_folder_that_the_pages_of_the_code_name_exists() -> None:
    named = {name for page in (ARCHITECTURE, GATE) for name in _PATH.findall(_prose(page))} - {
        "proxy/nanonets_proxy/"
    }
    assert len(named) > 40
    assert sorted(path for path in named if not (PACKAGE / path).exists()) == []


def test_the_diagram_of_the_layers_matches_the_import_rules() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rules = next(contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers")
    rows = [re.findall(r"│ (\w+)(?:/|\.py) ", line) for line in ARCHITECTURE.read_text().splitlines()]
    assert [set(row) for row in rows if row] == [set(layer.split(" | ")) for layer in rules if layer != "__main__"]
