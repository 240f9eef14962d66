"""Runs the tests that docs/testing-your-code.md shows, and compares its table with the marker."""

import re
import subprocess
import sys
from pathlib import Path

from nanonets_proxy.pytest_plugin import marker
from support.commands.process import END_S, PLUGIN_ALONE, environment

PAGE = (Path(__file__).parents[2] / "docs" / "testing-your-code.md").read_text()


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--color=no"],
        cwd=tmp_path,
        env=environment(**PLUGIN_ALONE),
        capture_output=True,
        text=True,
        timeout=2 * END_S,
        check=False,
    )
    count = sum(block.count("def test_") for block in blocks)
    assert len(blocks) == 3
    assert f"\n{count} passed" in done.stdout, done.stdout


def test_the_table_lists_every_argument_of_the_marker() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", PAGE, re.MULTILINE)) == sorted(
        [*marker._NAMES, "nanonets_sandbox", "nanonets_proxy"]
    )
