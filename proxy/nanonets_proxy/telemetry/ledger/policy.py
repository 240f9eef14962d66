"""The parameters of the usage ledger."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SANDBOX: Final = "(sandbox)"
"""Stands for the environment of a sandbox's requests. No environment can have this name."""


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """Where the ledger is, and what it keeps."""

    path: Path
    days: int
    """How long rows and roll-ups are kept."""
    max_rows: int
    """The most rows that are kept; the roll-ups stay."""
