"""The places in flight of one replica: at most `max_in_flight` of its requests are with the upstream."""

import asyncio
from collections import deque
from collections.abc import Callable

from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.core.ratelimit.tickets import TicketState


class Places:
    """Claims with a permit take places in the order of their permits. A paused claim that resumes goes first."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self.most = most
        """The number of places. After a change, `fill` applies it."""
        self.taken = 0
        self._loop = loop
        self._waiting: deque[OwnClaim] = deque()
        self._paused: dict[OwnClaim, None] = {}
        self._resuming: deque[OwnClaim] = deque()

    @property
    def is_free(self) -> bool:
        """Whether a new claim would get a place at once."""
        return self.taken < self.most and not self._waiting

    def take(self, claim: OwnClaim) -> None:
        """Gives a place to a claim, now or when one is free."""
        if self.taken < self.most:
            self._place(claim)
        else:
            self._waiting.append(claim)

    def leave(self, claim: OwnClaim) -> None:
        """Ends a claim's place, pause or wait. `fill` gives the place to another claim."""
        if claim.has_place:
            claim.has_place = False
            self.taken -= 1
        self._paused.pop(claim, None)
        claim.give_up = None
        if claim in self._resuming:
            self._resuming.remove(claim)
            claim.resuming = None
        if claim in self._waiting:
            self._waiting.remove(claim)

    def pause(self, claim: OwnClaim, give_up: Callable[[], None]) -> None:
        """Lends a claim's place to others. If too many are paused, the one that paused first gives up."""
        if len(self._paused) + len(self._resuming) >= self.most:
            if not self._paused:
                give_up()
                return
            first = next(iter(self._paused))
            del self._paused[first]
            if first.give_up is not None:
                first.give_up()
        claim.give_up = give_up
        self._paused[claim] = None
        claim.has_place = False
        claim.ticket.state = TicketState.PAUSED
        self.taken -= 1
        self.fill()

    async def resume(self, claim: OwnClaim) -> None:
        """Waits until a paused claim has a place again."""
        self._paused.pop(claim, None)
        if self.taken < self.most:
            self._place(claim)
            return
        claim.resuming = self._loop.create_future()
        self._resuming.append(claim)
        await claim.resuming

    def fill(self) -> None:
        """Gives free places to the claims that wait for one."""
        while self.taken < self.most:
            if self._resuming:
                claim = self._resuming.popleft()
                self._place(claim)
                if claim.resuming is not None and not claim.resuming.done():
                    claim.resuming.set_result(None)
                claim.resuming = None
            elif self._waiting:
                self._place(self._waiting.popleft())
            else:
                return

    def _place(self, claim: OwnClaim) -> None:
        claim.has_place = True
        self.taken += 1
        claim.ticket.state = TicketState.ADMITTED
        claim.ticket.granted_at_s = self._loop.time()
        future, claim.future = claim.future, None
        if future is not None and not future.done():  # else its task is ending, and calls `leave`
            future.set_result(None)
