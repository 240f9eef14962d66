"""Divides the open files that the system allows this process.

Each caller's connection needs a file. Its request in flight needs two more: the connection to the upstream and a
spool file. At the system's limit, the event loop would close new connections without a response.
"""

import resource
from typing import Final

_MOST_OTHER_FILES: Final = 128  # listeners, watches, the log, connections to the admin listener
_MOST_SPARE_FILES: Final = 32
_MOST_ADMIN_CONNECTIONS: Final = 64
_FEWEST_CONNECTIONS: Final = 2
_UNLIMITED: Final = 2**31

CURE: Final = "raise the limit of open files: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of containers"


def open_files_limit(*, hard: bool = False) -> int:
    """Returns how many files this process may have open. `hard`: after `serve` has raised the limit."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[hard]
    return _UNLIMITED if files == resource.RLIM_INFINITY else files


def most_connections(wanted: int, pool_size: int, files: int, environments: int = 1) -> int:
    """Returns how many callers' connections one of `environments` may hold, `wanted` at most.

    `pool_size` is the most requests in flight of that environment, `files` the limit of open files of the process.
    """
    share = (files - min(_MOST_OTHER_FILES, 20 + files // 5)) // environments
    affordable = share - 2 * pool_size if share > 3 * pool_size else share // 3
    return min(wanted, max(_FEWEST_CONNECTIONS, affordable))


def most_admin_connections(files: int) -> int:
    return min(_MOST_ADMIN_CONNECTIONS, max(_FEWEST_CONNECTIONS, files // 8))


def last_file(files: int) -> int:
    """Returns the number of the last file that a caller's connection may have.

    The kernel gives out the lowest free number, so a higher one shows that only the spare files are left.
    """
    return files - 1 - min(_MOST_SPARE_FILES, max(1, files // 16))
