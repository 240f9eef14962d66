"""The inputs that fuzzing starts from, and those that once failed: one per line, in Python's escaped form."""

import ast
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent


def read(name: str) -> list[bytes]:
    """Returns the entries of `name`.txt."""
    return [ast.literal_eval(f"b'{line}'") for line in (_FOLDER / f"{name}.txt").read_text().splitlines()]
