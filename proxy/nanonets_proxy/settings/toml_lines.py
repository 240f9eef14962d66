"""Finds the line of a setting in a TOML file, for messages about its value. Python's parser does not tell it."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_WORD: Final = r"(?<![\w-]){}(?![\w-])"


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

    `keys` is as in `TomlPlace`. The lines up to a line that may have the setting's name as a key are parsed. That
    shows whether the line sets it, is part of a text, or is in another table.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    tables = [re.compile(_WORD.format(re.escape(key))) for key in keys[:-1]]
    first = max((_first_with(table, lines) for table in tables), default=0)
    name = re.compile(_WORD.format(re.escape(keys[-1])) + r"[\"']?\s*[=.\]]")
    for index, line in enumerate(lines[first:], first):
        if name.search(line) and not line.lstrip().startswith("#") and _sets(line, lines[:index], keys):
            return index + 1
    return None


def _first_with(word: re.Pattern[str], lines: Sequence[str]) -> int:
    """Returns the index of the first line with the word; 0 if there is none, as escapes may spell it."""
    return next((index for index, line in enumerate(lines) if word.search(line)), 0)


def _sets(line: str, before: Sequence[str], keys: Sequence[str]) -> bool:
    """Returns whether a line begins the statement that sets the setting."""
    if _has(before, keys) is not False:
        return False
    # A list may go on for many lines, so a 0 replaces it. A key in quotes may contain the first `=`.
    starts = [line, *(f"{line[: match.start()]}= 0" for match in re.finditer("=", line))]
    return next((has for start in starts if (has := _has([*before, start], keys)) is not None), False)


def _has(lines: Sequence[str], keys: Sequence[str]) -> bool | None:
    """Returns whether the lines have the setting; None if they end within a value, and so are no TOML.

    A value that is no table, where the setting's table should be, is the 0 of `_sets`.
    """
    try:
        found: Any = tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return None
    for key in keys:
        if not isinstance(found, dict):
            return True
        if key not in found:
            return False
        found = found[key]
    return True
