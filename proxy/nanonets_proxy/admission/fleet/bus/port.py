"""The port to Redis: messages between replicas, and the lease of the leader.

Messages are best effort. Each may be lost while the connection is; none is delivered twice, and those from one
replica to another stay in order. Only the holder of the lease leads. An epoch is the number of one holder's time: a
later holder has a larger one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

EVERYBODY = ""
LATE: Final = "the messages of Redis reach this replica late"


@dataclass(frozen=True, slots=True)
class Won:
    """The lease is ours."""

    epoch: int
    kept: bytes
    """What the last leader kept in Redis; empty if it kept nothing, or too long ago."""
    kept_age_s: float
    others: int = 0
    """How many replicas with another version of the protocol are here."""


class BusError(Exception):
    """Redis did not do what was asked: it is away, read-only, out of memory, or refuses the command."""


class EpochVoid(BusError):
    """No leader can have had the largest known epoch: it is far ahead of the clock of Redis."""


class CoordinationUnusable(Exception):
    """The settings of the coordination cannot work. The message is one sentence without secrets."""


class Bus(Protocol):
    """One replica's connection."""

    def start(
        self,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        on_unheard: Callable[[str], None],
    ) -> None:
        """Connects, and reconnects whenever the connection is lost. `on_lost` gets the reason.

        `on_unheard` gets the name of a replica that is not connected to Redis, after a message to it.
        """

    @property
    def connected(self) -> bool:
        """Whether messages arrive."""

    @property
    def fault(self) -> str:
        """Why the latest attempt to connect failed, or the connection was lost; empty while it is connected."""

    @property
    def is_sending(self) -> bool:
        """Whether Redis has not yet confirmed all messages of this replica."""

    def send(self, to: str, data: bytes) -> None:
        """Sends a message to a replica, or to `EVERYBODY`, this replica included. Never waits."""

    def reconnect(self, reason: str) -> None:
        """Connects anew, but at most once a minute: a connection may be faulty in a way that only replicas notice.

        It may be slow, or lead to another server than the other connections.
        """

    async def campaign(self, epoch: int) -> Won | None:
        """Takes the lease if nobody holds it; the new epoch is above `epoch`. None: it is held.

        Raises EpochVoid, or another BusError.
        """

    async def renew(self, epoch: int, replicas: int, beat: bytes, keep: bytes | None) -> int | None:
        """Renews the lease of a fleet with this number of replicas, and tells `beat` to everybody.

        `keep` is kept in Redis; None: leaves what is kept. Returns how many replicas with another version of the
        protocol are here; None if another replica holds the lease. Raises BusError.
        """

    async def resign(self, epoch: int) -> None:
        """Gives the lease back. Never raises."""

    async def stop(self) -> None:
        """Closes the connections."""
