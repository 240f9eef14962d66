"""Remembers the last errors, and summarises them by kind with the cure of each."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.status.document import Problem
from nanonets_proxy.core.status.error_advice import advice_for
from nanonets_proxy.core.status.request_counts import CALLER_FAULTS, CALLER_GONE
from nanonets_proxy.core.status.text import shown

_REMEMBERED: Final = 50
_SHOWN_S: Final = 3600.0
_THROTTLED: Final = 429
_ERROR_FROM: Final = 400
_FAILURE_FROM: Final = 500


@dataclass(frozen=True, slots=True)
class _Error:
    kind: str
    status: int
    at_s: float
    caller: str
    request_id: str
    reason: str
    good: float
    """How many requests had not failed before it."""

    @property
    def is_failure(self) -> bool:
        """Whether it got a 5xx that is not for its caller's fault, or a response that broke off."""
        if self.status >= _FAILURE_FROM:
            return self.kind not in CALLER_FAULTS
        return 0 < self.status < _ERROR_FROM and self.kind != CALLER_GONE

    @property
    def is_refusal(self) -> bool:
        """Whether the upstream's limit is its cause. A caller's budget is a rule of the operator."""
        return self.status == _THROTTLED and self.kind != "daily_budget_used_up"


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The last request, which failed."""

    kind: str
    is_refusal: bool
    """Whether the upstream's limit refused it."""
    age_s: float
    reason: str
    """Why, if its error has a reason."""


class RecentErrors:
    """The last `_REMEMBERED` requests that failed."""

    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: deque[_Error] = deque(maxlen=_REMEMBERED)

    def note(
        self, status: int, code: str, caller: str, request_id: str, now: float, *, reason: str = "", good: float = 0
    ) -> None:
        """Remembers a failed request; `code` is that of the proxy's own error response, or empty.

        `good` requests since the start had not failed, up to now.
        """
        kind = code or f"upstream_{status}"
        self._errors.append(_Error(kind, status, now, shown(caller), shown(request_id), shown(reason), good))

    def newest_failure(self) -> str | None:
        """Returns the kind of the newest 5xx or response that broke off; None if there is none."""
        return next((error.kind for error in reversed(self._errors) if error.is_failure), None)

    def last_failure(self, good: float, now: float) -> LastFailure | None:
        """Returns the newest failure or refusal of the last hour, if no later request has succeeded.

        `good` requests since the start have not failed.
        """
        last = next((error for error in reversed(self._errors) if error.is_failure or error.is_refusal), None)
        if last is None or last.good < good or now - last.at_s >= _SHOWN_S:
            return None
        return LastFailure(last.kind, last.is_refusal, now - last.at_s, last.reason)

    def problems(self, now: float) -> list[Problem]:
        """Returns the errors of the last hour by kind, the newest kind first."""
        by_kind: dict[str, tuple[_Error, int]] = {}
        for error in reversed(self._errors):
            if now - error.at_s < _SHOWN_S:
                newest, times = by_kind.get(error.kind, (error, 0))
                by_kind[error.kind] = newest, times + 1
        return [
            Problem(
                kind=kind,
                times=times,
                age_s=round(now - newest.at_s),
                is_alert=False,
                caller=newest.caller,
                request_id=newest.request_id,
                advice=advice_for(kind, newest.reason),
            )
            for kind, (newest, times) in by_kind.items()
        ]
