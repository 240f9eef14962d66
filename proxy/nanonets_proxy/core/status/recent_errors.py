"""Remembers the last errors, and summarises them by kind with the cure of each."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.status.document import Problem
from nanonets_proxy.core.status.error_advice import advice_for
from nanonets_proxy.core.status.text import shown

_REMEMBERED: Final = 50
_SHOWN_S: Final = 3600.0
_FAILURE_FROM: Final = 500


@dataclass(frozen=True, slots=True)
class _Error:
    kind: str
    is_failure: bool
    at_s: float
    caller: str
    request_id: str


class RecentErrors:
    """The last `_REMEMBERED` requests that failed."""

    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: deque[_Error] = deque(maxlen=_REMEMBERED)

    def note(self, status: int, code: str, caller: str, request_id: str, now: float) -> None:
        """Remembers a failed request; `code` is that of the proxy's own error response, or empty."""
        kind = code or f"upstream_{status}"
        self._errors.append(_Error(kind, status >= _FAILURE_FROM, now, shown(caller), shown(request_id)))

    def newest_failure(self) -> str | None:
        """Returns the kind of the newest error with a 5xx; None if there is none."""
        return next((error.kind for error in reversed(self._errors) if error.is_failure), None)

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
                advice=advice_for(kind),
            )
            for kind, (newest, times) in by_kind.items()
        ]
