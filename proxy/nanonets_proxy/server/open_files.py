"""Divides the open files that the system allows this process.

Each caller's connection needs a file. Its request needs two more while it is in flight or its upload is paused: the
connection to the upstream and a spool file. A refused request that waits keeps its spool file. With durable jobs,
each connection may need one more, to store a request or to read a stored response, and so does each job in flight.
At the limit of the system, the event loop would close new connections without a response.
"""

import resource
from typing import Final

_MOST_OTHER_FILES: Final = 128  # listeners, watches, the log, connections to the admin listener
_MOST_SPARE_FILES: Final = 32
_MOST_ADMIN_CONNECTIONS: Final = 64
_MOST_VIEWERS: Final = 256
_FEWEST_CONNECTIONS: Final = 2
_UNLIMITED: Final = 2**31


def open_files_limit(*, hard: bool = False) -> int:
    """Returns how many files this process may have open. `hard`: after `serve` has raised the limit."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[hard]
    return _UNLIMITED if files == resource.RLIM_INFINITY else files


def most_forwarded(pool_size: int) -> int:
    """Returns how many requests have a connection to the upstream at most, and how many spool files there may be.

    `pool_size` is the most requests in flight. As many again may be paused, or wait to resume.
    """
    return 2 * pool_size


def most_connections(
    wanted: int, pool_size: int, files: int, environments: int = 1, *, has_jobs: bool = False
) -> int:
    """Returns how many callers' connections one of `environments` may hold, `wanted` at most.

    `pool_size` is the most requests in flight of that environment, `files` the limit of open files of the process.
    """
    share = (files - min(_MOST_OTHER_FILES, 20 + files // 5) - most_viewers(files)) // environments
    forwarded, own = most_forwarded(pool_size), 1 + has_jobs
    in_flight = 2 * forwarded + has_jobs * pool_size
    affordable = (
        (share - in_flight) // own if share > in_flight + own * forwarded else share // (2 + own + has_jobs)
    )
    return min(wanted, max(_FEWEST_CONNECTIONS, affordable))


def most_admin_connections(files: int) -> int:
    """Returns how many connections the admin listener may hold: those of all viewers, and others."""
    return min(_MOST_ADMIN_CONNECTIONS, max(_FEWEST_CONNECTIONS, files // 8)) + most_viewers(files)


def most_viewers(files: int) -> int:
    """Returns how many viewers may watch the status at a time. Each holds a connection."""
    return min(_MOST_VIEWERS, files // 32)


def last_file(files: int) -> int:
    """Returns the number of the last file that a caller's connection may have.

    The kernel gives out the lowest free number, so a higher one shows that only the spare files are left.
    """
    return files - 1 - min(_MOST_SPARE_FILES, max(1, files // 16))
