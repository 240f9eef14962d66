"""What the keyring and its shell hand each other: keys and what is known of them, uses, verdicts, events.

`keyring.py` has the theory.
"""

import enum
import math
from dataclasses import dataclass

from nanonets_proxy.core.keys.api_key import ApiKey


class KeyState(enum.Enum):
    CANDIDATE = "candidate"
    ACTIVE = "active"
    PREVIOUS = "previous"
    REJECTED = "refused"


class KeyringState(enum.Enum):
    SERVING = "serving"
    HOLDING = "gap"
    EXHAUSTED = "spent"


class KeyVerdict(enum.Enum):
    """What an answer says of the key it was asked with."""

    ACCEPTED = "accepted"
    REJECTED = "refused"
    UNKNOWN = "unknown"


# As attributes of their class they cost a call at each look, in Python 3.11.
_ACCEPTED, _REJECTED, _UNKNOWN = KeyVerdict


def verdict_of(status: int) -> KeyVerdict:
    """401 refuses the key. Only success proves it: an upstream may answer otherwise before it looks at the key."""
    if 200 <= status < 300:
        return _ACCEPTED
    return _REJECTED if status == 401 else _UNKNOWN


class Purpose(enum.Enum):
    """Why a request goes out with a key."""

    PLAIN = "plain"
    TRIAL = "trial"
    """It is the first to use a candidate."""
    PROBE = "probe"
    """It looks for others, within a gap, whether a refused key works again."""
    REPEAT = "repeat"
    """It was refused with this key, which has served others since."""
    LAST = "last"
    """No key is in good standing, and it may not be held: what comes is its answer."""


class KeyEventKind(enum.Enum):
    CANDIDATE_FOUND = "key_candidate"
    ACTIVATED = "key_active"
    CANDIDATE_REJECTED = "key_candidate_refused"
    ACTIVE_REJECTED = "key_refused"
    PREVIOUS_REJECTED = "key_previous_refused"
    GAP_OPENED = "key_gap"


class KeyWarning(enum.Enum):
    """What somebody should look at."""

    CANDIDATE_REJECTED = "the source holds a key that the upstream refuses; the one before it goes on serving"
    NO_KEY_ACCEPTED = "the upstream refuses every key"
    OLD = "the key is older than key_max_age: rotate it"


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key of a reading. `created_at_s` is when it was put there, on the wall clock."""

    key: ApiKey
    created_at_s: float


@dataclass(eq=False, slots=True)
class KeyRecord:
    """What is known of one key."""

    key: ApiKey
    state: KeyState
    created_at_s: float
    expires_at_s: float
    """End of the grace time of a PREVIOUS one."""
    refused_at_s: float = -math.inf
    refused_no: int = 0
    """The moment of its latest refusal."""
    proven_no: int = 0
    """The moment at which the latest accepted request with it was sent."""


@dataclass(init=False, eq=False, slots=True)
class KeyUse:
    """One sending of one request. Ends by `Keyring.settle`."""

    # One is made for each request, and filled in where it is made: a constructor would double its cost.
    record: KeyRecord
    purpose: Purpose
    sent_no: int
    """The moment at which it was chosen: moments are counted, since a clock may show two of them as one."""


@dataclass(slots=True)
class KeyHistory:
    """What one request found out about keys. `may_test_candidate`: sending it again is cheap."""

    may_test_candidate: bool
    may_probe: bool = False
    """It was let through a gap to probe."""
    rejections: tuple[tuple[KeyRecord, int], ...] = ()
    """What it was refused with, and at which moments."""

    def is_fresh(self, record: KeyRecord) -> bool:
        return all(refused is not record for refused, _ in self.rejections)

    def last_refusal_no(self, record: KeyRecord) -> int:
        return max(number for refused, number in self.rejections if refused is record)


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """Something for the log."""

    kind: KeyEventKind
    record: KeyRecord
