"""A claim: one request's need for a permit, wherever the gate is that decides on it.

The gate is that of a *home*: this process's own gate (`local_home.py`), or the leader's (`remote_home.py`). When
the replica changes its home, all claims move: the new home adopts the granted ones, and the waiting ones enter it.
"""

from typing import TYPE_CHECKING, Final, Protocol

from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import ProxyError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

REPORT_LOST_S: Final = 2.0
"""A leader waits so much longer for a follower's report that a request has had no response.

By then, it has forgotten a follower that stands still: after `MEMBER_EXPIRES_S` and up to a beat.
"""


class Claim:
    """One request's claim, with names as they are on the wire (`core/ratelimit/fleet/names.py`)."""

    __slots__ = (
        "cost",
        "deadline_s",
        "granted_at_s",
        "home",
        "is_granted",
        "kind",
        "lane",
        "number",
        "report_in_s",
        "scope",
        "twin",
        "urgency",
    )

    is_of_member = False
    """Whether another replica than the gate's sends the request."""

    def __init__(self, number: int, scope: str, lane: str, deadline_s: float, cost: float) -> None:
        self.number = number
        """Orders the claims of one replica by arrival, and names them on the wire."""
        self.scope = scope
        self.lane = lane
        self.kind = ""
        self.urgency = 0
        self.deadline_s = deadline_s
        self.cost = cost
        self.is_granted = False
        self.granted_at_s = 0.0
        self.report_in_s: float | None = None
        """After how long without a response the leader must be told of it; None: it need not."""
        self.twin: Ticket | None = None
        """The claim's ticket at the gate of `home`."""
        self.home: object = None

    @property
    def is_paused(self) -> bool:
        """Whether it has a permit, and lends its place to others."""
        return False

    def granted(self, now_s: float) -> None:
        """Acts on the grant."""
        raise NotImplementedError

    def rejected(self, error: ProxyError) -> None:
        """Acts on the end of the claim without a permit."""
        raise NotImplementedError

    def must_wait(self) -> None:
        """Acts on the home's word that the claim gets no permit at once."""


class OwnClaim(Claim):
    """The claim of a request of this replica."""

    __slots__ = ("epoch", "error", "future", "has_place", "on_granted", "on_must_wait", "ticket", "told_epoch")

    def __init__(
        self,
        number: int,
        ticket: Ticket,
        names: tuple[str, str, str],
        on_granted: "Callable[[OwnClaim, float], None]",
        on_must_wait: "Callable[[OwnClaim], None]",
    ) -> None:
        super().__init__(number, names[0], names[1], ticket.deadline_s, ticket.cost)
        self.kind = names[2]
        self.urgency = ticket.urgency
        self.ticket = ticket
        self.on_granted = on_granted
        self.on_must_wait = on_must_wait
        self.future: asyncio.Future[None] | None = None
        """Set while the request waits."""
        self.error: ProxyError | None = None
        self.has_place = False
        self.epoch = 0
        """The epoch of the leader that granted the claim, or knows of it; 0: no leader does."""
        self.told_epoch = 0
        """The epoch of the leader that a hello has told of the claim, until its welcome; else 0."""

    @property
    def is_paused(self) -> bool:
        return self.is_granted and not self.has_place

    def reset_error(self) -> None:
        """Forgets an earlier rejection: the request enters again."""
        self.error = None

    def granted(self, now_s: float) -> None:
        self.on_granted(self, now_s)

    def must_wait(self) -> None:
        self.on_must_wait(self)

    def rejected(self, error: ProxyError) -> None:
        self.error = error
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class Home(Protocol):
    """The gate that decides on claims. It calls `granted` or `rejected` of each claim that entered."""

    def try_admit(self, claim: OwnClaim, now_s: float) -> bool:
        """Returns whether the claim has its permit now, without a wait. If not, it may `enter`."""

    def enter(self, claim: OwnClaim, now_s: float) -> None:
        """Lets the claim wait for a permit."""

    def adopt(self, claim: OwnClaim, now_s: float) -> None:
        """Takes over a claim that another home granted."""

    def leave(self, claim: OwnClaim) -> None:
        """Forgets a waiting claim."""

    def pause(self, claim: OwnClaim) -> None:
        """Gives the place of a granted claim to others, until `resume`."""

    def resume(self, claim: OwnClaim) -> None:
        """Takes a place for a paused claim again. Its replica has given it one of its own."""

    def settle(
        self, claim: OwnClaim, outcome: Outcome, retry_after_s: float | None, *, quota_used_up: bool
    ) -> None:
        """Ends the permit of a claim."""

    def correct_cost(self, claim: OwnClaim, cost: float) -> None:
        """Corrects the cost of a claim that had a grant, also if that has ended."""

    def note_advice(self, claim: OwnClaim, advice: Advice) -> None:
        """Applies what the response announced about the limit."""

    def close(self) -> None:
        """Forgets all claims, which move to another home."""
