"""The facts of a finished request, for its observers, such as the metrics."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class FinishedRequest(Protocol):
    """Durations are in seconds. Each fact that callers choose freely, such as `method`, is unbounded."""

    @property
    def method(self) -> str: ...
    @property
    def route(self) -> str:
        """One of `ROUTES` (core/api/routes.py)."""

    @property
    def caller(self) -> str: ...
    @property
    def scope(self) -> str:
        """Empty if the request was rejected before its scope was known."""

    @property
    def status(self) -> int:
        """0: the caller hung up before the response began."""

    @property
    def code(self) -> str:
        """The error's code; empty: the request was served."""

    @property
    def details(self) -> Mapping[str, Any] | None:
        """Facts about the error, such as its `reason`."""

    @property
    def request_id(self) -> str: ...

    @property
    def is_counted(self) -> bool:
        """Whether it counts in the caller's daily budget."""

    @property
    def attempts(self) -> int:
        """How many times the request was sent upstream."""

    @property
    def retried_after(self) -> str:
        """The kind of the last failure after which it was sent again; empty: none."""

    @property
    def wait_s(self) -> float: ...
    @property
    def upstream_s(self) -> float | None:
        """None: nothing was sent upstream, or no response came."""

    @property
    def total_s(self) -> float: ...
    @property
    def received_bytes(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...


RecordedSpan = tuple[int | None, str, int, int]
"""An attempt of a sampled request, or a wait in the queue.

The response's status (0 if none came, None for a wait), an error's code if no response came, and the beginning and
the end by `perf_counter_ns`.
"""

Observer = Callable[[FinishedRequest], None]
"""Called once for each request, on the event loop. It must take microseconds, and must not raise."""
