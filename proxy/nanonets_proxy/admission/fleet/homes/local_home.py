"""The home of claims at a gate of this process. Each claim has a ticket of its own there, its twin."""

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

from nanonets_proxy.admission.fleet.homes.claim import REPORT_LOST_S, Claim
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.adaptive.other_gates import await_report, merge, reported, sent
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from nanonets_proxy.errors import ProxyError, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Callable

_NEW, _WAITING, _ADMITTED, _PAUSED = TicketState.NEW, TicketState.WAITING, TicketState.ADMITTED, TicketState.PAUSED
_GRANTED = (_ADMITTED, _PAUSED)


class LocalHome:
    """Passes claims to a gate of this process."""

    def __init__(self, gate: Gate, room: WaitingRoom, loop: asyncio.AbstractEventLoop) -> None:
        self.gate = gate
        self.room = room
        self._loop = loop
        self.on_refused: Callable[[], None] = lambda: None
        """Called after each 429."""
        self.counts: Callable[[Claim], bool] = lambda _: False
        """Returns whether the gate counts a claim in use before it is adopted."""
        self.may_decide: Callable[[float], bool] = lambda _: True
        """Called before a grant to a claim that has waited. If it returns False, the claims have moved."""

    def try_admit(self, claim: Claim, now_s: float) -> bool:
        return self.room.try_admit(self._new_twin(claim), now_s)

    def enter(self, claim: Claim, now_s: float) -> None:
        if (twin := self._twin(claim)) is None:
            twin = self._new_twin(claim)
            # A claim that has moved is decided on once more: its earlier home may not have had the time.
            twin.deadline_s = max(twin.deadline_s, now_s)
            if self.room.try_admit(twin, now_s):
                self._granted(claim, twin, now_s)
                return
        twin.cost = claim.cost
        try:
            future = self.room.enter(twin, now_s)
        except ProxyError as error:
            claim.rejected(error)
            return
        if future is None:
            self._granted(claim, twin, now_s)
        else:
            future.add_done_callback(partial(self._decided, claim, twin))
            claim.must_wait()

    def _decided(self, claim: Claim, twin: Ticket, future: "asyncio.Future[None]") -> None:
        error = None if future.cancelled() else future.exception()
        if self._twin(claim) is not twin or isinstance(error, ShuttingDown):
            return  # the claim has moved
        if isinstance(error, ProxyError):
            claim.rejected(error)
        elif twin.state is _ADMITTED and self.may_decide(now_s := self._loop.time()):
            self._granted(claim, twin, now_s)

    def _granted(self, claim: Claim, twin: Ticket, now_s: float) -> None:
        if claim.is_of_member:
            limit = self.gate.scopes.by_name[twin.scope].limit
            claim.report_in_s = await_report(limit, twin.serial, REPORT_LOST_S)
        claim.granted(now_s)

    def adopt(self, claim: Claim, now_s: float, *, is_counted: bool = False) -> None:
        if not is_counted and not self.counts(claim):
            merge(self.gate.limit_to_tell(claim.scope, now_s), ((claim.granted_at_s, claim.cost),), -math.inf)
        twin = self._new_twin(claim)
        self.gate.adopt(twin, claim.granted_at_s, now_s)
        if claim.is_paused:
            self.gate.pause(twin)

    def leave(self, claim: Claim) -> None:
        twin = self._twin(claim)
        claim.twin = None
        if twin is not None and twin.state in (_WAITING, _ADMITTED):
            self.room.leave(twin)

    def sent(self, claim: Claim, sent_at_s: float) -> None:
        """Notes when a member sent its request, if that was not at the time of the grant."""
        twin = self._twin(claim)
        if twin is not None and twin.state in _GRANTED:
            limit = self.gate.limit_to_tell(twin.scope, self._loop.time())
            sent_at_s = max(twin.granted_at_s, sent_at_s)  # the estimate of the member's clock may be off
            sent(limit, twin.serial, twin.granted_at_s, sent_at_s, twin.cost)
            claim.granted_at_s = twin.granted_at_s = sent_at_s
            self.room.poll()

    def pause(self, claim: Claim) -> None:
        twin = self._twin(claim)
        if twin is not None and twin.state is _ADMITTED:
            self.gate.pause(twin)
            self.room.poll()

    def resume(self, claim: Claim) -> None:
        if (twin := self._twin(claim)) is not None:
            self.gate.resume(twin, even_if_full=True)

    def settle(
        self,
        claim: Claim,
        outcome: Outcome,
        retry_after_s: float | None,
        *,
        quota_used_up: bool,
        ended_at_s: float = math.inf,
    ) -> None:
        """Ends the permit of a claim. `ended_at_s`: when the response came, if that was a while ago."""
        twin = self._twin(claim)
        if twin is not None and twin.state in _GRANTED:
            ended_at_s = max(twin.granted_at_s, ended_at_s)
            self.room.settle(twin, outcome, retry_after_s, quota_used_up, ended_at_s)
            if outcome is Outcome.THROTTLED:
                self.on_refused()

    def reported(self, claim: Claim) -> None:
        """Notes that a member has had no response in the time that was set with the grant."""
        if (twin := self._twin(claim)) is not None and twin.state in _GRANTED:
            now_s = self._loop.time()
            reported(self.gate.limit_to_tell(twin.scope, now_s), twin.serial, now_s)
            self.room.poll()

    def correct_cost(self, claim: Claim, cost: float) -> None:
        if (twin := self._twin(claim)) is not None and twin.state not in (_NEW, _WAITING):
            self.room.correct_cost(twin, cost)

    def note_advice(self, claim: Claim, advice: Advice) -> None:
        if (twin := self._twin(claim)) is not None:
            self.room.note_advice(twin, advice)

    def close(self) -> None:
        self.room.retire()

    def _twin(self, claim: Claim) -> Ticket | None:
        """Returns the claim's ticket at this gate; None if the claim has none here."""
        return claim.twin if claim.home is self else None

    def _new_twin(self, claim: Claim) -> Ticket:
        twin = Ticket(claim.scope, claim.deadline_s, claim.lane, claim.urgency, claim.cost, claim.kind)
        claim.twin, claim.home = twin, self
        return twin
