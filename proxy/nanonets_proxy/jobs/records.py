"""The values that the store, the runner and the endpoints of jobs exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nanonets_proxy.core.jobs.lifecycle import JobState
from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.errors import JobsFull

INLINE_BYTES: Final = 64 * 1024
"""Bodies up to this size are in the database, so that one fsync covers many. Larger ones are in files."""

_FULL_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Content:
    """A stored body. `data` None: it is in a file."""

    length: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Work:
    """All that a job's sending needs, except for its body."""

    id: str
    lane: JobLane
    cost: float
    pages: int | None
    request_id: str
    method: str
    target: str
    host: bytes
    fields: bytes = field(repr=False)
    """The lines of the request's forwarded fields. Credentials are not among them."""
    body_bytes: int
    created_s: float
    """Since 1970."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored."""

    work: Work
    key: str | None
    """The idempotency key."""
    fingerprint: bytes
    """Of the payload; b"" without an idempotency key."""
    body: Content = field(repr=False)


class JobView(NamedTuple):
    """What a job's caller may know of it."""

    id: str
    state: JobState
    caller: str
    scope: str
    number: int
    """The place in the order of arrival."""
    method: str
    target: str
    created_s: float
    changed_s: float
    """The instant of the latest change of the state, since 1970."""
    status: int | None
    """The status of the response, if there is one."""
    reason: str
    """Why it is not done; "" if that is clear."""
    ahead: float
    """About the cost of the queued jobs of its scope that came before it."""


@dataclass(frozen=True, slots=True)
class Result:
    """A response. `head` has the status line and the fields, each with its CR LF, without the empty line."""

    status: int
    head: bytes = field(repr=False)
    body: Content = field(repr=False)


class KnownKey(NamedTuple):
    """The job that has an idempotency key, and the fingerprint of its payload."""

    view: JobView
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """The jobs in the store, of all processes that use it."""

    jobs: Mapping[JobState, int] = field(default_factory=dict)
    bytes: int = 0
    """Disk space of all bodies and responses."""
    oldest_s: float | None = None
    """When the oldest queued job was stored, since 1970; None: none is queued."""

    @property
    def unfinished(self) -> int:
        return self.jobs.get(JobState.QUEUED, 0) + self.jobs.get(JobState.SENDING, 0)


class NoRoom(Exception):
    """The store has as many unfinished jobs as it may have."""


def too_many() -> JobsFull:
    """Returns the error for a job beyond `max_jobs`."""
    return JobsFull("As many jobs are queued or being sent as max_jobs allows.", retry_after_s=_FULL_RETRY_S)
