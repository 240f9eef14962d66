"""The bounds of the source tree: a module and a folder can be read at once."""

from collections import Counter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
MOST_LINES: Final = 300
MOST_FILES: Final = 15
"""Without `__init__.py`, which only says what the folder is for."""
# Generated caches, and files of other tools that are next to ours.
_IGNORED: Final = {"__pycache__", "node_modules", ".system", ".pytest_cache", ".ruff_cache", ".mypy_cache"}


def _files(folder: str) -> list[Path]:
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*"))
    return [path for path in found if (ROOT / path).is_file() and not _IGNORED & set(path.parts)]


def test_no_module_of_the_program_is_longer_than_300_lines() -> None:
    modules = [path for path in _files("proxy") if path.suffix == ".py"]
    assert len(modules) > 100
    assert [str(path) for path in modules if len((ROOT / path).read_text().splitlines()) > MOST_LINES] == []


@pytest.mark.parametrize("folder", ["proxy", "tests", "bench", "docs", "deploy", "config"])
def test_no_folder_has_more_than_15_files(folder: str) -> None:
    counts = Counter(str(path.parent) for path in _files(folder) if path.name != "__init__.py")
    assert counts
    assert {name: count for name, count in counts.items() if count > MOST_FILES} == {}
