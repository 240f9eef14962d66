"""The values that the keyring and the key manager exchange: keys, uses, verdicts, events.

`keyring.py` explains how the keyring works.
"""

import enum
import math
from dataclasses import dataclass

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.doubts import Doubt


class KeyState(enum.Enum):
    """The state of one key. `keyring.py` has the transitions; operators see the values."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    PREVIOUS = "previous"
    REJECTED = "rejected"


class KeyringState(enum.Enum):
    """The state of the whole keyring. `keyring.py` has the transitions; operators see the values."""

    SERVING = "serving"
    HOLDING = "gap"
    EXHAUSTED = "spent"


class KeyVerdict(enum.Enum):
    """What a response says about the key of its request."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


# In Python 3.11 a lookup of an enum member on its class costs a function call.
_ACCEPTED, _REJECTED, _UNKNOWN = KeyVerdict


def verdict_of(status: int) -> KeyVerdict:
    """Returns the verdict of a response status.

    401 rejects the key. Only success proves the key: an upstream may send other statuses before it checks the key.
    A 304 stands for a success: without its condition, the response would have been a 2xx (RFC 9110 §13.2.1).
    """
    if 200 <= status < 300 or status == 304:
        return _ACCEPTED
    return _REJECTED if status == 401 else _UNKNOWN


class Ruling(enum.Enum):
    """What happens to a request after a response."""

    RELAY = "the caller gets the response"
    SEND_AGAIN = "the request is sent again, with another key or after a hold period"
    WAIT = "the response is kept until it is known whether the 401 concerns the key"


class Purpose(enum.Enum):
    """Why a request is sent with a key."""

    ORDINARY = "ordinary"
    CANDIDATE_PROBE = "candidate probe"
    """The first use of a candidate."""
    REJECTED_PROBE = "rejected probe"
    """In a hold period: tests whether a rejected key works again."""
    REPEAT = "repeat"
    """The upstream rejected this request with this key, and has accepted other requests with it since."""
    LAST_RESORT = "last resort"
    """No key is usable and the request may not be held: the caller gets the upstream's response."""


class KeyEventKind(enum.Enum):
    """The names of log events."""

    CANDIDATE_FOUND = "key_candidate"
    ACTIVATED = "key_active"
    CANDIDATE_REJECTED = "key_candidate_rejected"
    ACTIVE_REJECTED = "key_rejected"
    PREVIOUS_REJECTED = "key_previous_rejected"
    HOLD_STARTED = "key_gap"
    HOLD_ENDED = "key_gap_ended"
    REQUEST_REJECTED = "key_cleared"
    """A 401 concerned its request alone: the key works for another one."""


class KeyWarning(enum.Enum):
    """A condition that an operator should look into, as a sentence."""

    CANDIDATE_REJECTED = "the upstream rejects the key that the source holds; the previous key stays in use"
    NO_KEY_ACCEPTED = "the upstream rejects every key"
    DOUBTED = "the upstream responds with 401, and no other request shows that the key works"
    OLD = "the key is older than key_max_age: rotate it"


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that a source holds. `created_at_s` is when it was put there, on the wall clock."""

    key: ApiKey
    created_at_s: float


@dataclass(eq=False, slots=True)
class KeyRecord:
    """What the keyring knows about one key."""

    key: ApiKey
    state: KeyState
    created_at_s: float
    expires_at_s: float
    """The end of the grace time, if the key is PREVIOUS."""
    rejected_at_s: float = -math.inf
    rejected_seq: int = 0
    """The sequence number of the latest rejection."""
    accepted_seq: int = 0
    """The sequence number at which the latest accepted request chose the key."""
    doubt: Doubt | None = None
    """The targets rejected with the key since; it stays while the key is REJECTED."""


@dataclass(init=False, eq=False, slots=True)
class KeyUse:
    """One attempt of one request with one key. Ends by `Keyring.settle`."""

    # Every request makes one, and its maker sets the fields: a constructor would double the cost.
    record: KeyRecord
    purpose: Purpose
    chosen_seq: int
    """The sequence number of the choice. The keyring counts, because two choices may share one clock instant."""


@dataclass(slots=True)
class KeyHistory:
    """The keys with which the upstream rejected one request.

    `may_test_candidate`: sending the request again is cheap, so it may be the first to use a new key. `target`: the
    request's method and path; requests with the same target are no independent evidence.
    """

    may_test_candidate: bool
    target: str = ""
    may_probe: bool = False
    """Whether the request was released from a hold period to probe a rejected key."""
    rejections: tuple[tuple[KeyRecord, int], ...] = ()
    """Each rejection's key and sequence number."""

    def is_untried(self, record: KeyRecord) -> bool:
        """Returns whether the upstream has not rejected this request with the key."""
        return all(rejected is not record for rejected, _ in self.rejections)

    def last_rejection_seq(self, record: KeyRecord) -> int:
        """Returns the sequence number of this request's latest rejection with the key; 0 without one."""
        return max((seq for rejected, seq in self.rejections if rejected is record), default=0)


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A change of a key's state, for the log."""

    kind: KeyEventKind
    record: KeyRecord
    target: str = ""
    """Set for REQUEST_REJECTED."""
    lasted_s: float = 0.0
    """Set for HOLD_ENDED."""
