"""The waiting room of a replica: its requests' claims, its places in flight, and its log of grants.

A claim is in one of these states:

    WAITING    its home decides
      granted, and a place is free             -> HELD
      granted, and no place is free            -> PLACING
      rejected, or the request has gone        -> ended
    PLACING    has given its permit back; waits for a place in flight of this replica
      a place is free                          -> WAITING
    HELD       has a permit and a place: the request is sent
      `pause`                                  -> PAUSED
      `settle`                                 -> ended; the ticket may enter again with the same claim
    PAUSED     has a permit; its place is free for others, until `resume`

Each replica keeps to its own `max_in_flight`; the limits of the upstream are its home's affair. `move` gives all
claims to another home. No claim is lost by that: the permits stay valid, and waiting claims keep their order.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.fleet.homes.claim import Home, OwnClaim
from nanonets_proxy.admission.fleet.in_doubt import InDoubt
from nanonets_proxy.admission.fleet.places import Places
from nanonets_proxy.admission.waiting_room import rejection_error, shutting_down
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket, TicketState

if TYPE_CHECKING:
    from nanonets_proxy.errors import ProxyError

_RETRY_S: Final = 1.0
_LATE_S: Final = 0.5
_UNCOUNTED: Final = (Outcome.THROTTLED, Outcome.UNUSED)


class FleetRoom:
    """Lets requests wait for their permits, as `WaitingRoom` does (`admission.Admission`)."""

    def __init__(self, policy: GatePolicy, names: Names, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self.log = GrantLog()
        self.valid_until_s = math.inf
        """Once this instant has passed, `on_stale` must find another home before the next decision."""
        self.on_stale: Callable[[], None] = lambda: None
        self.on_ask: Callable[[], None] = lambda: None
        """Called after a claim has entered its home."""
        self.on_own_grant: Callable[[OwnClaim], None] = lambda _: None
        self.on_refused: Callable[[str, float], None] = lambda *_: None
        """Called after a 429, with its scope and the end of its hint.

        Not after the 429 of a used-up quota, which is tested again long before the end of its hint.
        """
        self.epoch = 0
        self._policy = policy
        self._names = names
        self._home = home
        self._loop = loop
        self._numbers = 0
        self._closed = False
        self._claims: dict[OwnClaim, None] = {}  # all but the ended ones
        self.in_doubt = InDoubt()
        self._places = Places(policy.max_in_flight, loop, self._ask_again, lambda claim: self._home.resume(claim))
        self.waiting = 0
        """The number of claims without a permit."""

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy to this replica. Its home gets the policy from `Replica`."""
        self._policy = policy
        self._places.most = policy.max_in_flight
        self._places.fill()

    @property
    def in_flight(self) -> int:
        """The number of places that are taken."""
        return self._places.taken

    def queue(self) -> "Counter[tuple[str, str]]":
        """Counts the requests without a permit, by caller and scope."""
        return Counter((claim.ticket.lane, claim.ticket.scope) for claim in self._claims if not claim.is_granted)

    # --- homes --------------------------------------------------------------------------------------

    def move(self, home: Home, epoch: int) -> None:
        """Gives all claims to another home, which decides from now on."""
        now_s = self._loop.time()
        self._home.close()
        self._home, self.epoch = home, epoch
        self._places.forget_waiting()
        claims = sorted(self._claims, key=lambda claim: claim.number)
        for claim in claims:
            claim.twin = None
            if claim.is_granted:
                home.adopt(claim, now_s)
        for claim in claims:
            if not claim.is_granted and claim.error is None:  # else its rejection is about to reach its request
                home.enter(claim, now_s)

    def may_decide(self, now_s: float) -> bool:
        """Returns whether its home still decides. If not, moves all claims to another one."""
        if now_s <= self.valid_until_s:
            return True
        self.on_stale()
        return False

    def is_at(self, home: Home) -> bool:
        """Returns whether this home decides on the claims."""
        return self._home is home

    def telling(self, epoch: int) -> None:
        """Notes that the leader of this epoch is told of the log, and of the claims that have a permit."""
        for claim in self.held():
            claim.told_epoch = epoch

    def told(self, epoch: int) -> None:
        """Notes that the leader of this epoch knows what it was told."""
        self.log.told(epoch)
        self.in_doubt.clear()
        for claim in self.held():
            claim.epoch, claim.told_epoch = epoch, 0

    def held(self) -> Iterator[OwnClaim]:
        """Yields the claims that have a permit."""
        return (claim for claim in self._claims if claim.is_granted)

    def expire(self, now_s: float) -> None:
        """Rejects the claims that no home has decided on long after their deadline."""
        for claim in [c for c in self._claims if not c.is_granted and c.deadline_s + _LATE_S < now_s]:
            self._home.leave(claim)
            claim.rejected(rejection_error(Reason.DEADLINE_PASSED, _RETRY_S, claim.cost))
            self._forget_waiting(claim)

    # --- requests -----------------------------------------------------------------------------------

    def try_admit(self, ticket: Ticket, now_s: float) -> bool:
        self.may_decide(now_s)
        if not self._places.is_free:
            return False
        claim = self._claim(ticket)
        if not self._home.try_admit(claim, now_s):
            return False
        self._claims[claim] = None
        self.waiting += 1
        self._on_granted(claim, now_s)
        return True

    def enter(
        self, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None
    ) -> "asyncio.Future[None] | None":
        self.may_decide(now_s)
        if self._closed and not self._places.is_free:
            raise shutting_down()
        if ticket.state is TicketState.NEW and self.waiting >= self._policy.max_waiting:
            raise rejection_error(Reason.QUEUE_FULL, _RETRY_S, ticket.cost, self.waiting + 1)
        claim = self._claim(ticket)
        claim.cost = ticket.cost
        claim.reset_error()
        ticket.state = TicketState.WAITING
        self._claims[claim] = None
        self.waiting += 1
        self._home.enter(claim, now_s)
        error: ProxyError | None = claim.error
        if error is not None:
            self._forget_waiting(claim)
            raise error
        if claim.has_place:
            return None
        self.on_ask()
        if on_wait is not None:
            on_wait()
        claim.future = self._loop.create_future()
        claim.future.add_done_callback(lambda _: self._on_decided(claim))
        return claim.future

    def leave(self, ticket: Ticket) -> None:
        claim = ticket.claim
        if not isinstance(claim, OwnClaim) or claim not in self._claims:
            return
        if claim.is_granted:
            self.settle(ticket, Outcome.UNUSED)
        else:
            self._home.leave(claim)
            self._forget_waiting(claim)

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        retry_after_s: float | None = None,
        quota_used_up: bool = False,
    ) -> None:
        claim = ticket.claim
        if not isinstance(claim, OwnClaim) or not claim.is_granted:
            raise ValueError("this permit is already settled, or belongs to another gate")
        now_s = self._loop.time()
        self.may_decide(now_s)
        del self._claims[claim]
        claim.is_granted = False
        self._places.leave(claim)
        self._places.fill_resuming()  # before the home grants to others
        if outcome not in _UNCOUNTED:
            number = self.log.add(claim.scope, claim.granted_at_s, claim.cost, claim.epoch)
            self.in_doubt.note_logged(claim, number)
        else:
            self.in_doubt.note_refused(claim, self.epoch)
        ticket.state = TicketState.ENDED if outcome is Outcome.SERVED else TicketState.RETURNED
        if outcome is Outcome.THROTTLED and not quota_used_up:
            hint_s = retry_after_s or 0.0
            if hint_s <= self._policy.max_wait_s:
                self.on_refused(claim.scope, now_s + hint_s)
        self._home.settle(claim, outcome, retry_after_s, quota_used_up=quota_used_up)
        self._places.fill()

    def correct_cost(self, ticket: Ticket, cost: float) -> None:
        claim = ticket.claim
        ticket.cost = cost
        if isinstance(claim, OwnClaim):
            if not claim.is_granted:
                self.log.correct_cost(claim.scope, claim.granted_at_s, claim.cost, cost)
            claim.cost = cost
            self._home.correct_cost(claim, cost)

    def note_advice(self, ticket: Ticket, advice: Advice) -> None:
        if isinstance(ticket.claim, OwnClaim):
            self._home.note_advice(ticket.claim, advice)

    def pause(self, ticket: Ticket, give_up: Callable[[], None]) -> None:
        if isinstance(ticket.claim, OwnClaim) and ticket.claim.has_place:
            self._places.pause(ticket.claim, give_up)
            if ticket.claim.is_paused:
                self._home.pause(ticket.claim)

    async def resume(self, ticket: Ticket) -> None:
        if isinstance(ticket.claim, OwnClaim) and ticket.state is TicketState.PAUSED:
            await self._places.resume(ticket.claim)

    def close(self) -> None:
        """Rejects all waiting tickets, and future ones that must wait. Permits in use stay valid."""
        self._closed = True
        for claim in [claim for claim in self._claims if not claim.is_granted]:
            self._home.leave(claim)
            claim.rejected(shutting_down())
            self._forget_waiting(claim)

    # --- claims --------------------------------------------------------------------------

    def _claim(self, ticket: Ticket) -> OwnClaim:
        if isinstance(ticket.claim, OwnClaim):
            return ticket.claim
        names = self._names
        self._numbers += 1
        on_wire = (names.scope(ticket.scope), names.lane(ticket.lane), names.kind(ticket.kind))
        claim = OwnClaim(self._numbers, ticket, on_wire, self._on_granted, self._on_must_wait)
        ticket.claim = claim
        return claim

    def _on_granted(self, claim: OwnClaim, now_s: float) -> None:
        if not self._places.take(claim):
            self._home.settle(claim, Outcome.UNUSED, None, quota_used_up=False)
            return
        self.waiting -= 1
        claim.is_granted, claim.granted_at_s = True, now_s
        claim.epoch, claim.told_epoch = self.epoch, 0
        self.on_own_grant(claim)

    def _on_must_wait(self, claim: OwnClaim) -> None:
        self._places.must_wait(claim)
        if self._closed:
            self._home.leave(claim)
            claim.rejected(shutting_down())

    def _ask_again(self, claim: OwnClaim) -> None:
        now_s = self._loop.time()
        if self.may_decide(now_s):
            self._home.enter(claim, now_s)
            self.on_ask()

    def _on_decided(self, claim: OwnClaim) -> None:
        """Forgets a claim that was rejected while it waited."""
        if claim.error is not None and claim in self._claims:
            self._forget_waiting(claim)

    def _forget_waiting(self, claim: OwnClaim) -> None:
        del self._claims[claim]
        self._places.leave(claim)
        self.waiting -= 1
        claim.future = None
        claim.ticket.state = TicketState.ENDED
