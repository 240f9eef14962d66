"""Messages of the program: each setting that they tell an operator to change exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nanonets_proxy.settings.model.proxy import Settings

PACKAGE = Path(__file__).parents[2] / "proxy" / "nanonets_proxy"
_ADVICE = re.compile(r"(?<![\w-])(?:set|raise|lower|check) ([a-z]+(?:_[a-z]+)+)")


def _advised() -> Iterator[str]:
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _ADVICE.findall(node.value)


def test_every_setting_that_a_message_advises_to_change_exists() -> None:
    advised = set(_advised())
    assert len(advised) > 15
    assert advised - Settings.model_fields.keys() == set()
