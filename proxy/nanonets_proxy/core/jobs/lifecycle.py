"""The states of a job, and the events that change them.

    QUEUED     stored, and certainly not executed by the upstream
      SEND: recorded before the first byte is sent             -> SENDING
      RESPOND: a 429 that concerns only this job is its result -> DONE
      REJECT: it can never be sent                             -> FAILED
      CANCEL: by its caller                                    -> CANCELLED
    SENDING    the upstream may have received it
      RETURN: certainly not executed, so it may be sent again  -> QUEUED
      RESPOND: the upstream's response is stored               -> DONE
      REJECT: not one byte was sent, and it can never be       -> FAILED
      LOSE: no response came or is known, perhaps by a crash   -> UNKNOWN
    DONE, FAILED, UNKNOWN, CANCELLED are final, and are removed after `jobs_keep`

`RETURN` follows only from what `request/judge.py` decides for a caller's request too: a refusal (429, 401), a
connection that could not be made, or the retry of a method that is safe to repeat. So a job is sent at most once
unless the earlier sending is known to have had no effect, and a job in doubt is never sent again.
"""

import enum
from typing import Final


class JobState(enum.StrEnum):
    """See the module's docstring."""

    QUEUED = "queued"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


class JobEvent(enum.Enum):
    """See the module's docstring."""

    SEND = "send"
    RETURN = "return"
    RESPOND = "respond"
    REJECT = "reject"
    LOSE = "lose"
    CANCEL = "cancel"


_QUEUED, _SENDING = JobState.QUEUED, JobState.SENDING

SOURCES: Final[dict[JobEvent, tuple[JobState, ...]]] = {
    JobEvent.SEND: (_QUEUED,),
    JobEvent.RETURN: (_SENDING,),
    JobEvent.RESPOND: (_QUEUED, _SENDING),
    JobEvent.REJECT: (_QUEUED, _SENDING),
    JobEvent.LOSE: (_SENDING,),
    JobEvent.CANCEL: (_QUEUED,),
}
"""The states in which each event can happen."""

TARGETS: Final[dict[JobEvent, JobState]] = {
    JobEvent.SEND: JobState.SENDING,
    JobEvent.RETURN: JobState.QUEUED,
    JobEvent.RESPOND: JobState.DONE,
    JobEvent.REJECT: JobState.FAILED,
    JobEvent.LOSE: JobState.UNKNOWN,
    JobEvent.CANCEL: JobState.CANCELLED,
}
"""The state after each event."""

UNFINISHED: Final = (_QUEUED, _SENDING)
FINAL: Final = (JobState.DONE, JobState.FAILED, JobState.UNKNOWN, JobState.CANCELLED)
HOLDS_KEY: Final = (_QUEUED, _SENDING, JobState.DONE)
"""The states in which a job holds its idempotency key. In the others the key is free for another job."""
