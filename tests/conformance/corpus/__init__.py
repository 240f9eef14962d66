"""Bytes that fuzzing starts from, and whatever it found: one a line, as Python writes them between quotes."""

import ast
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent


def read(name: str) -> list[bytes]:
    """The entries of `name`.txt."""
    return [ast.literal_eval(f"b'{line}'") for line in (_FOLDER / f"{name}.txt").read_text().splitlines()]


def line_of(data: bytes) -> str:
    """An entry as its line in the file."""
    return repr(b'"' + data)[3:-1]
