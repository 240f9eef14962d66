"""Looks at a directory of jobs for the command `check`.

It changes nothing, but SQLite may leave the files `-wal` and `-shm` of its own beside the database.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.directory import JobDirectory
from nanonets_proxy.jobs.policy import JobsUnusable
from nanonets_proxy.jobs.records import Tally
from nanonets_proxy.telemetry.database_fault import DatabaseFault, fault_of


class Inspection(NamedTuple):
    """A directory that can be used."""

    tally: Tally
    free_bytes: int
    """Of its disk."""


def inspect_jobs(path: Path, upstream: str) -> Inspection:
    """Returns what the directory has. Raises JobsUnusable if a start with this upstream would."""
    directory = JobDirectory(path)
    free_bytes = directory.inspect()
    if not directory.database.exists():
        return Inspection(Tally(), free_bytes)
    try:
        with closing(JobDatabase(directory.database, upstream, read_only=True)) as database:
            return Inspection(database.tally(), free_bytes)
    except (sqlite3.Error, OSError, DatabaseFault) as error:
        fault = error if isinstance(error, DatabaseFault) else fault_of(error)
        raise JobsUnusable(f"jobs: {directory.database} {fault}") from None
