"""GET /status: the status document of the process and its environments, at most 64 KiB."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Protocol

import orjson

from nanonets_proxy import __version__
from nanonets_proxy.core.status.document import SCHEMA_VERSION, EnvironmentStatus, RequestCounts, StatusDocument
from nanonets_proxy.core.status.state import most_urgent
from nanonets_proxy.server.open_files import open_files_limit

MAX_BYTES: Final = 64 * 1024
_MOST_ITEMS: Final = (20, 5, 1, 0)  # of each list; fewer if the document would be too large


class Environment(Protocol):
    """What the status needs of an environment."""

    def status(self, most: int) -> EnvironmentStatus:
        """Returns the status, with lists of at most `most` items."""
        ...


class StatusReader:
    """Reads the status."""

    def __init__(self, environments: Sequence[Environment]) -> None:
        self._environments = environments
        self._started_s = time.monotonic()

    def read(self) -> bytes:
        """Returns the document as JSON without a line break."""
        for most in _MOST_ITEMS:
            environments = [environment.status(most) for environment in self._environments]
            body = self._encode(environments, is_shortened=most < _MOST_ITEMS[0])
            if len(body) <= MAX_BYTES:
                return body
        return self._shortened(environments)

    def _shortened(self, environments: list[EnvironmentStatus]) -> bytes:
        """Returns the document without the last hour, and without some environments if there are very many."""
        bare = [replace(environment, requests=_without_buckets(environment)) for environment in environments]
        while len(body := self._encode(bare, is_shortened=True)) > MAX_BYTES:
            del bare[len(bare) * 3 // 4 :]
        return body

    def _encode(self, environments: list[EnvironmentStatus], *, is_shortened: bool) -> bytes:
        return orjson.dumps(
            StatusDocument(
                schema_version=SCHEMA_VERSION,
                version=__version__,
                time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                uptime_s=int(time.monotonic() - self._started_s),
                state=most_urgent(environment.state for environment in environments),
                open_files_limit=open_files_limit(),
                is_shortened=is_shortened,
                environments=tuple(environments),
            )
        )


def _without_buckets(environment: EnvironmentStatus) -> RequestCounts:
    requests = environment.requests
    return RequestCounts(requests.bucket_s, requests.per_second, *((),) * 7)
