"""The places in flight of one replica: at most `max_in_flight` of its requests are with the upstream.

A permit without a place would hold a place at the leader, and count as a request that nobody sends. So a claim that
finds no free place gives its permit back, and waits here. When a place is free, the claim that arrived first asks
for a permit again.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.core.ratelimit.tickets import TicketState

_MAX_STALE: Final = 64


class Places:
    """A paused claim that resumes gets the next free place."""

    def __init__(
        self,
        most: int,
        loop: asyncio.AbstractEventLoop,
        ask_again: Callable[[OwnClaim], None],
        resumed: Callable[[OwnClaim], None],
    ) -> None:
        """`ask_again` lets a claim ask its home for a permit. `resumed` tells the home of one that has resumed."""
        self.most = most
        """The number of places. After a change, `fill` applies it."""
        self.taken = 0
        self._loop = loop
        self._ask_again, self._resumed = ask_again, resumed
        self._waiting: dict[OwnClaim, None] = {}
        self._in_order: list[tuple[int, OwnClaim]] = []  # a heap by number; claims that have left stay for a while
        self._asking: dict[OwnClaim, None] = {}  # the claims that ask again, until their home has answered
        self._fills = False
        self._paused: dict[OwnClaim, Callable[[], None]] = {}  # how each gives up
        self._resuming: dict[OwnClaim, asyncio.Future[None]] = {}

    @property
    def is_free(self) -> bool:
        """Whether a place is free that no claim waits for."""
        return self.taken < self.most and not self._waiting and not self._asking

    def take(self, claim: OwnClaim) -> bool:
        """Gives a place to a claim with a permit. Returns False if none is free: then the claim waits for one."""
        self._asking.pop(claim, None)
        if self.taken < self.most:
            self._place(claim)
            return True
        if len(self._in_order) > 2 * len(self._waiting) + _MAX_STALE:
            self._in_order = [(each.number, each) for each in self._waiting]
            heapq.heapify(self._in_order)
        self._waiting[claim] = None
        heapq.heappush(self._in_order, (claim.number, claim))
        return False

    def must_wait(self, claim: OwnClaim) -> None:
        """Notes that a claim gets no permit at once: another one may use the place."""
        if claim in self._asking:
            del self._asking[claim]
            self.fill()

    def forget_waiting(self) -> None:
        """Forgets the claims that wait for a place: all ask another home."""
        self._waiting.clear()
        self._in_order.clear()
        self._asking.clear()

    def leave(self, claim: OwnClaim) -> None:
        """Ends a claim's place, pause or wait. `fill` gives the place to another claim.

        If the claim was asking, the next one asks soon: not within this call, since a grant may not come in the
        middle of a loop over claims.
        """
        if claim in self._asking:
            del self._asking[claim]
            self._loop.call_soon(self.fill)
        if claim.has_place:
            claim.has_place = False
            self.taken -= 1
        self._paused.pop(claim, None)
        self._resuming.pop(claim, None)
        self._waiting.pop(claim, None)

    def pause(self, claim: OwnClaim, give_up: Callable[[], None]) -> None:
        """Lends a claim's place to others. If too many are paused, the one that paused first gives up."""
        if len(self._paused) + len(self._resuming) >= self.most:
            if not self._paused:
                give_up()
                return
            self._paused.pop(next(iter(self._paused)))()
        self._paused[claim] = give_up
        claim.has_place = False
        claim.ticket.state = TicketState.PAUSED
        self.taken -= 1
        self.fill()

    async def resume(self, claim: OwnClaim) -> None:
        """Waits until a paused claim has a place again."""
        self._paused.pop(claim, None)
        if self.taken < self.most:
            self._place(claim)
            self._resumed(claim)
            return
        future = self._resuming[claim] = self._loop.create_future()
        await future

    def fill(self) -> None:
        """Gives free places to paused claims that resume, and lets claims that wait for a place ask again."""
        if self._fills:  # a home may answer before `_ask_again` returns
            return
        self._fills = True
        try:
            while self.taken + len(self._asking) < self.most:
                if self._resuming:
                    self._resume_first()
                elif self._in_order:
                    _, claim = heapq.heappop(self._in_order)
                    if claim in self._waiting:
                        del self._waiting[claim]
                        self._asking[claim] = None
                        self._ask_again(claim)
                else:
                    break
        finally:
            self._fills = False

    def fill_resuming(self) -> None:
        """Gives free places to paused claims that resume."""
        while self._resuming and self.taken + len(self._asking) < self.most:
            self._resume_first()

    def _resume_first(self) -> None:
        claim = next(iter(self._resuming))
        future = self._resuming.pop(claim)
        self._place(claim)
        if not future.done():  # else its task is ending, and calls `leave`
            future.set_result(None)
        self._resumed(claim)

    def _place(self, claim: OwnClaim) -> None:
        claim.has_place = True
        self.taken += 1
        claim.ticket.state = TicketState.ADMITTED
        claim.ticket.granted_at_s = self._loop.time()
        future, claim.future = claim.future, None
        if future is not None and not future.done():  # else its task is ending, and calls `leave`
            future.set_result(None)
