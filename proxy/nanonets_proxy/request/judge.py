"""Judges the result of an attempt: decides whether the request is sent again, and how its permit is settled.

| result of the attempt | step | permit |
|---|---|---|
| 401 ruled SEND_AGAIN, the request can be sent again | SEND_WITH_OTHER_KEY | kept |
| 401 ruled WAIT, the request can be sent again | KEEP | KEY_REJECTED |
| any other 401 | RELAY | KEY_REJECTED |
| 429, the request can be sent again | WAIT | THROTTLED |
| any other 429 | RELAY | THROTTLED |
| 502, 503 or 504, and `Retries` grants a pause | RETRY | FAILED |
| any other response | RELAY | SERVED |
| a temporary error, and `Retries` grants a pause | RETRY | FAILED |
| any other error | REPORT | FAILED |

Within one attempt, the upstream client may send a request a second time, if a reused connection turns out to be
closed: see `may_use_new_connection` in core/http/retry.py.
"""

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from nanonets_proxy.core.http.retry import RETRIED_STATUSES, Failure, Retries
from nanonets_proxy.core.keys.key_records import Ruling
from nanonets_proxy.core.ratelimit.tickets import Outcome
from nanonets_proxy.request.received import Received
from nanonets_proxy.upstream.errors import (
    UpstreamClosed,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamTlsCut,
    UpstreamUnreachable,
)

# A handshake that an alert ended, a malformed response or a spent time limit fails again, or costs as much time.
_TEMPORARY_ERRORS: Final = (UpstreamClosed, UpstreamDnsFailed, UpstreamRefused, UpstreamTlsCut, UpstreamUnreachable)
MAY_BE_SENT_AGAIN: Final = RETRIED_STATUSES | {401, 429}
"""For any other status, the decision is SERVED."""


class Step(enum.Enum):
    """The step that follows an attempt."""

    RELAY = "relay the response"
    REPORT = "respond with the error"
    SEND_WITH_OTHER_KEY = "send again at once, with another key"
    KEEP = "keep the response until it is known whether the key still works"
    WAIT = "wait for another permit, at the old place"
    RETRY = "pause, then wait for another permit"


@dataclass(frozen=True, slots=True)
class Decision:
    """The step that follows, and how the permit is settled."""

    step: Step
    outcome: Outcome
    retry_after_s: float | None = None
    """The hint of a 429."""
    quota_used_up: bool = False
    """Whether the 429 says that a quota is used up for long."""
    pause_s: float = 0.0
    """The pause of a RETRY."""


class SentRequest(Protocol):
    """The part of a request that the judge reads."""

    @property
    def method(self) -> str: ...
    @property
    def can_be_sent_again(self) -> bool: ...
    @property
    def retries(self) -> int:
        """The number of retries so far."""


SERVED: Final = Decision(Step.RELAY, Outcome.SERVED)
RELAY_REJECTED: Final = Decision(Step.RELAY, Outcome.KEY_REJECTED)
_OTHER_KEY: Final = Decision(Step.SEND_WITH_OTHER_KEY, Outcome.FAILED)
KEEP: Final = Decision(Step.KEEP, Outcome.KEY_REJECTED)
REPORT_ERROR: Final = Decision(Step.REPORT, Outcome.FAILED)
HOLD_FOR_KEY: Final = Decision(Step.WAIT, Outcome.UNUSED)
"""For a request that no key can be sent with now."""


class Judge:
    """Reads no clock and does no I/O. Its only state is the budget of `retries`, from which each RETRY is paid."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def of_response(self, received: Received, request: SentRequest, time_left_s: float) -> Decision:
        """Decides on a response. The request's deadline is `time_left_s` away."""
        status = received.head.status
        if status not in MAY_BE_SENT_AGAIN:
            return SERVED
        if status == 401:
            if received.ruling is Ruling.RELAY or not request.can_be_sent_again:
                return RELAY_REJECTED
            return KEEP if received.ruling is Ruling.WAIT else _OTHER_KEY
        hint_s = None if received.hint is None else received.hint.retry_after_s
        if status == 429:
            step = Step.WAIT if request.can_be_sent_again else Step.RELAY
            quota_used_up = received.hint is not None and received.hint.quota_used_up
            return Decision(step, Outcome.THROTTLED, hint_s, quota_used_up)
        return self._retry(Failure.UNAVAILABLE, request, time_left_s, hint_s) or SERVED

    def of_error(self, error: UpstreamError, request: SentRequest, time_left_s: float) -> Decision:
        """Decides on an attempt without a response. The request's deadline is `time_left_s` away."""
        if not isinstance(error, _TEMPORARY_ERRORS):
            return REPORT_ERROR
        failure = Failure.LOST if error.sent else Failure.NOT_SENT
        return self._retry(failure, request, time_left_s, None) or REPORT_ERROR

    def _retry(
        self, failure: Failure, request: SentRequest, time_left_s: float, hint_s: float | None
    ) -> Decision | None:
        if not self._retries.enabled or not request.can_be_sent_again:
            return None
        pause_s = self._retries.pause_s(
            failure, request.method, retries_made=request.retries, time_left_s=time_left_s, hint_s=hint_s
        )
        return None if pause_s is None else Decision(Step.RETRY, Outcome.FAILED, pause_s=pause_s)
