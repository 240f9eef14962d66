"""The parameters of durable jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nanonets_proxy.core.jobs.window import Window

LEFT_FREE_BYTES: Final = 16 * 1024 * 1024
"""Submissions leave this much of the disk free. Jobs need it to end: each change of a state is written first."""


class JobsUnusable(Exception):
    """The directory of jobs cannot be used. The message is a sentence that names the setting and the directory."""


@dataclass(frozen=True, slots=True)
class JobsPolicy:
    """Where the jobs of an environment are stored, and how many."""

    directory: Path
    keep_s: float
    """How long jobs that have ended are kept."""
    max_unfinished: int
    """The most jobs that are queued or being sent."""
    max_bytes: int
    """The disk space at which no further job is accepted."""
    window: Window
    """How many jobs wait in the gate instead of in the store."""
