"""The states of a replica, and their transitions.

| state | decides | event | next state |
|---|---|---|---|
| ALONE | this replica's gate, with its share | the beat of a leader | JOINING |
| | | the beat of a leader with which the latest times were short (`Rejoins`) | ALONE |
| | | the beat of a leader that gathers | ALONE, and tells it to be here |
| | | the lease is won | COLLECTING |
| JOINING | nobody: requests wait | the leader's welcome | FOLLOWING |
| | | no welcome in `JOIN_TICKS` | ALONE |
| FOLLOWING | the leader | the leader resigns: this replica waits for the next one, or wins the lease | JOINING |
| | | silent for `SILENT_TICKS` with a question open, or for `BEATS_MISSED` | ALONE |
| | | no answer in 1 s to a question that was repeated, since the leader was silent for 0.5 s | ALONE |
| | | the beat of a leader with a later epoch, or `who` | JOINING |
| COLLECTING | as ALONE; nobody after JOINING | the replicas said hello (`lead.py`) | LEADING |
| | | Redis is silent for `SILENT_TICKS`, or delivers no message to this replica; a defect | ALONE |
| LEADING | this replica's gate, for all | the lease is lost, or Redis is silent for `LEAD_TICKS` | ALONE |
| | | Redis delivers no message to this replica for `LEAD_TICKS`, not even its own beat | ALONE |
| | | Redis delivers six of its own beats in a row more than 50 ms late | ALONE |
| | | the beat of a leader with a later epoch | JOINING |
| | | a hello has beliefs that count before this replica's own: it leads again with them | ALONE |
| any | | the connection to Redis is lost, or another gathers, unless this one seeks the lease | ALONE |

A leader decides only until `LEASE_VALID_S` after it last asked for its lease: a process that was stopped for long
finds that out before its next decision.
"""

import enum
from typing import Final

BEAT_S: Final = 0.25
"""A leader tells all replicas in this interval that it still leads."""
BEATS_MISSED: Final = 4
SILENT_TICKS: Final = 5
"""Ticks of `timers.py`, as are the next ones."""
SLOW_TICKS: Final = 25
LEAD_TICKS: Final = 25
JOIN_TICKS: Final = 20
GATHER_BEAT_S: Final = 0.05
"""A replica that gathers the others tells them in this interval."""


class State(enum.Enum):
    """Which gate decides on the requests of a replica."""

    ALONE = "alone"
    JOINING = "joining"
    FOLLOWING = "following"
    COLLECTING = "collecting"
    LEADING = "leading"

    @property
    def is_coordinated(self) -> bool:
        """Whether one gate decides for the whole fleet, as far as this replica knows."""
        return self in (State.FOLLOWING, State.LEADING)
