"""Groups of identical GETs: one of them, the leader, is sent, and the others, the followers, get its response.

A group is in one of these states:

    WAITING    the leader waits for a permit; GETs of the same lane may join
      the leader is being sent                          -> SENT
    SENT       the leader is with the upstream; GETs of every lane may join
      a write to its path or below begins or ends       -> CLOSED
      the response's head arrives                       -> CLOSED
    CLOSED     no GET may join; the next identical one leads another group
    each of the states above:
      the leader's caller hangs up                      -> the same, if there are followers; otherwise ENDED
      the leader has a response, or the upstream failed -> ENDED, the followers get the same
      the leader ends for a reason of its own           -> WAITING with the first follower as the leader, or ENDED
    ENDED      the group has no followers

**Lanes.** While a leader waits, a GET of another lane does not join: the leader's lane may have far more requests
than its own.

**Writes.** A GET that begins after a write has ended must see what was written, so it cannot join a leader that was
sent before. A leader that still waits is sent later than that, so writes do not matter to it. `writes.py` decides
which writes count.
"""

import enum
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from nanonets_proxy.core.coalescing.writes import may_change, segments_of

if TYPE_CHECKING:
    from nanonets_proxy.core.coalescing.kept_responses import KeptResponses

DEFAULT_COALESCE: Final[tuple[str, ...]] = (
    "/api/v4/workflows/{workflow}/documents/{document}",
    "/api/v2/Inferences/Model/{model}/ImageLevelInferences/{page}",
)
"""The paths that clients poll until a document is processed. No other GET is repeated unchanged."""


class Follower(Protocol):
    """A GET that waits for the response to another one."""

    @property
    def lane(self) -> str: ...


T = TypeVar("T", bound=Follower)


class GroupState(enum.Enum):
    """The states of a group. The top of this module has their transitions."""

    WAITING = "waiting"
    SENT = "sent"
    CLOSED = "closed"
    ENDED = "ended"


# In Python 3.11, each look-up of a member in its enum costs a call.
_WAITING, _SENT, _CLOSED, _ENDED = GroupState


class Group(Generic[T]):
    """One group. `Groups` changes it."""

    __slots__ = ("end_leader", "followers", "key", "lane", "state", "target")

    def __init__(self, key: Hashable, lane: str, target: str) -> None:
        self.key = key
        self.lane = lane
        """The leader's lane."""
        self.target = target
        self.state = _WAITING
        self.followers: dict[T, None] = {}
        """In the order in which they joined."""
        self.end_leader: Callable[[], object] | None = None
        """Ends a leader that goes on for its followers alone, because its caller has hung up; otherwise None."""


class Groups(Generic[T]):
    """The groups that GETs may join. `key` is all that makes two GETs identical."""

    __slots__ = ("_waiting", "kept", "sent")

    def __init__(self) -> None:
        self._waiting: dict[tuple[Hashable, str], Group[T]] = {}
        self.sent: dict[Hashable, Group[T]] = {}
        """The groups that a write may close. While it is empty, they need not note a write."""
        self.kept: KeptResponses[Any] | None = None
        """The responses that a write drops; None: the setting `revalidate` is empty."""

    def find(self, key: Hashable, lane: str) -> Group[T] | None:
        """Returns the group that a GET may join. A group that was sent will have its response sooner."""
        return self.sent.get(key) or (self._waiting.get((key, lane)) if self._waiting else None)

    def lead(self, key: Hashable, lane: str, target: str) -> Group[T]:
        """Returns a new group; `find` must have returned None."""
        group = self._waiting[key, lane] = Group(key, lane, target)
        return group

    def follow(self, group: Group[T], follower: T) -> None:
        group.followers[follower] = None

    def leave(self, group: Group[T], follower: T) -> Callable[[], object] | None:
        """Removes a follower whose caller has hung up. Returns `end_leader` if the response is no longer wanted."""
        group.followers.pop(follower, None)
        return None if group.followers else group.end_leader

    def lose_caller(self, group: Group[T], end_leader: Callable[[], object]) -> bool:
        """Notes that the leader's caller has hung up. Returns whether the leader goes on for its followers."""
        if group.followers:
            group.end_leader = end_leader
        return bool(group.followers)

    def note_sending(self, group: Group[T]) -> None:
        """Notes that the leader is being sent. It may be sent again, after a 429 or a failure."""
        if group.state is _WAITING:
            self._forget(group)
            if (older := self.sent.get(group.key)) is not None:  # of another lane
                self.close(older)
            self.sent[group.key] = group
            group.state = _SENT

    def note_write(self, method: str, target: str) -> None:
        """Notes that a write begins or ends."""
        if self.kept is not None:
            self.kept.note_write(method, target)
        written = segments_of(target)
        for group in list(self.sent.values()):
            if may_change(method, written, segments_of(group.target)):
                self.close(group)

    def close(self, group: Group[T]) -> None:
        """Lets no further GET join."""
        self._forget(group)
        if group.state is not _ENDED:
            group.state = _CLOSED

    def end(self, group: Group[T]) -> list[T]:
        """Ends the group, and returns the followers, all of which get the same."""
        self._forget(group)
        group.state, group.end_leader = _ENDED, None
        followers, group.followers = list(group.followers), {}
        return followers

    def pass_on(self, group: Group[T]) -> T | None:
        """Ends a leader that has no response for the others. Returns the follower that leads now, if there is one.

        The new leader waits for a permit in its own lane.
        """
        self._forget(group)
        group.end_leader = None
        if not group.followers:
            group.state = _ENDED
            return None
        leader = next(iter(group.followers))
        del group.followers[leader]
        group.lane, group.state = leader.lane, _WAITING
        # A group that was closed may have a successor, which GETs join already.
        self._waiting.setdefault((group.key, group.lane), group)
        return leader

    def _forget(self, group: Group[T]) -> None:
        if group.state is _WAITING:
            if self._waiting.get((group.key, group.lane)) is group:
                del self._waiting[group.key, group.lane]
        elif self.sent.get(group.key) is group:
            del self.sent[group.key]
