"""Finds the line of a setting in a TOML file, for messages about its value. Python's parser does not tell it."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TomlPlace:
    """A setting in a TOML file. `str` returns the file with the line, which takes some milliseconds."""

    path: Path
    text: str = field(repr=False)
    keys: tuple[str, ...] = ()
    """Lead to the setting, such as `("environments", "eu", "max_wait")`."""

    def at(self, key: str) -> "TomlPlace":
        """Returns the place of a key of this table."""
        return TomlPlace(self.path, self.text, (*self.keys, key))

    @property
    def source(self) -> str:
        """The file, and the table if the setting is in one."""
        return ", ".join([str(self.path), *self._table])

    def __str__(self) -> str:
        line = line_of(self.text, self.keys)
        return self.source if line is None else ", ".join([f"{self.path}:{line}", *self._table])

    @property
    def _table(self) -> list[str]:
        return [".".join(self.keys[:-1])] if self.keys[:-1] else []


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Returns the number of the line on which a setting begins; None if it cannot be told.

    `keys` is as in `TomlPlace`. The lines up to a line with the setting's name are parsed. That shows whether the
    line sets it, is part of a text, or is in another table.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    name = re.compile(rf"(?<![\w-]){re.escape(keys[-1])}(?![\w-])")
    for index, line in enumerate(lines):
        if name.search(line) and not line.lstrip().startswith("#") and _has(lines[:index], keys) is False:
            ends = range(index + 1, len(lines) + 1)  # a list may have several lines
            if next((has for end in ends if (has := _has(lines[:end], keys)) is not None), False):
                return index + 1
    return None


def _has(lines: Sequence[str], keys: Sequence[str]) -> bool | None:
    """Returns whether the lines have the setting; None if they end within a value, and so are no TOML."""
    try:
        found: Any = tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return None
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True
