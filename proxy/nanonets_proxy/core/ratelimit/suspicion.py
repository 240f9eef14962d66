"""Finds refusals that concern only the refused request, so that such a request never holds up another.

A request may be refused alone: it is larger than the whole limit, or its model has its own limit. Such an *own
refusal* says nothing about the limit of the scope. The evidence is another request that is accepted at the same
time. A refusal is *in doubt* while the gate looks for this evidence: `doubtful_refusal.py` says which ones. The one
that closed the scope is in doubt too, when a request sent later is accepted: then the scope is probed at once.

A refusal in doubt neither closes the scope nor changes the estimate. Its ticket is *held*: it leaves the queue for
as long as the hint says, the next time for twice as long, and then returns to its old place.

| state of the scope | event | next state |
|---|---|---|
| NO DOUBT | a refusal in doubt | IN DOUBT |
| IN DOUBT | a request is granted: the *substitute* | TESTING |
| TESTING: no other grants | the substitute is accepted | NO DOUBT: each refusal in doubt was its ticket's own |
| | the substitute is refused | NO DOUBT: the limit was the cause, and the scope is closed |
| | the substitute ends in another way | IN DOUBT |

- The substitute is a ticket that was never refused, of another kind and another caller than the refused ticket, if
  such a ticket waits. The next probe after a refused probe is chosen in the same way, and so is each probe in the
  ten minutes after an own refusal.
- While no limit is known and few refusals are in doubt, the scope goes on granting.
- While own refusals are expected, two substitutes in a row must be refused to close the scope.
- A lesson is undone if each refusal that led to it was its ticket's own, unless another one had a later lesson.
- A ticket with three refusals, of which two were certainly its own, ends: its caller gets the upstream's response.
  A refusal without a hint is never certain, since the limit may have had room again for the substitute. Its ticket
  is held for longer each time, and waits until its deadline.
"""

import math
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.doubtful_refusal import SHORT_S, DoubtfulRefusal
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState

_EXPECTED_FOR_S: Final = 600.0  # after an own refusal, more of them are expected for this long
_MAX_IN_DOUBT: Final = 3  # with this many, the scope waits for the substitute even if no limit is known
_MAX_UNFIT: Final = 8
_LATER: Final = 0.25  # times the usual delay of a 429: requests granted close together may overtake each other
_MAX_LESSONS: Final = 8  # older lessons are not undone


@dataclass(slots=True)
class _Lesson:
    """The lesson of a closure. It is wrong if each refusal that led to it was its ticket's own."""

    first: Ticket  # its refusal began the closure
    belief: Belief  # the estimate before the lesson
    refused: list[Ticket]  # the refused tickets, as far as their refusals may be the limit's


class Suspicion:
    """The refusals in doubt of one scope, and the lessons that they may have taught."""

    __slots__ = (
        "_closure_is_doubtful",
        "_in_doubt",
        "_last_own",
        "_lessons",
        "_refused_substitutes",
        "_substitute",
        "_unfit",
        "avoided",
        "ended",
        "expected_until_s",
        "substitute_accepted_at_s",
    )

    def __init__(self) -> None:
        self.avoided: Ticket | None = None
        """The next probe must be another ticket, if another waits."""
        self.ended: list[Ticket] = []
        """Held tickets that end at the next poll."""
        self.expected_until_s = -math.inf
        """Until then, own refusals are expected."""
        self.substitute_accepted_at_s = math.inf
        """When the substitute counts as accepted, even without a response; inf: there is none."""
        self._in_doubt: list[Ticket] = []
        self._substitute: Ticket | None = None
        self._refused_substitutes = 0  # one after the other
        self._last_own: Ticket | None = None
        self._unfit = 0  # grants that were no substitutes
        self._closure_is_doubtful = False  # whether no later request was refused like the one that closed the scope
        self._lessons: list[_Lesson] = []  # of the latest closures, in order

    def is_idle(self, now: float) -> bool:
        """Returns whether a new `Suspicion` would do as well, if no ticket is held."""
        if self._lessons:
            while refused := self._lessons[-1].refused:
                if refused[-1].state is not TicketState.ENDED:
                    break
                refused.pop()
            else:
                self._lessons.clear()  # its cause will never be known
        if self._in_doubt or self._lessons or self.ended or self.avoided is not None:
            return False
        return now >= self.expected_until_s

    # --- grants ---------------------------------------------------------------------------------

    def may_grant(self, limit: Limit) -> bool:
        """Returns whether the scope may grant a request, as far as refusals in doubt are concerned."""
        if self._substitute is None:
            return True
        return not limit.estimate.known and len(self._in_doubt) < _MAX_IN_DOUBT

    @property
    def needs_substitute(self) -> bool:
        return self._substitute is None and bool(self._in_doubt)

    def replaced(self, kind: GrantKind, now: float) -> Ticket | None:
        """Returns the ticket that the granted one should differ from; None: any ticket may be granted."""
        if self.needs_substitute:
            return self._in_doubt[-1]
        if kind is GrantKind.RECOVERY_PROBE and self.avoided is not None:
            return self.avoided
        # A probe that is refused alone would teach something wrong.
        is_probe = kind in LIMIT_PROBES or kind is GrantKind.RECOVERY_PROBE
        return self._last_own if is_probe and now < self.expected_until_s else None

    def note_grant(self, ticket: Ticket, limit: Limit, now: float) -> None:
        """Notes a grant. Its ticket may become the substitute."""
        self.avoided = None
        if self.needs_substitute:
            last = self._in_doubt[-1]
            is_like_last = ticket.lane == last.lane and ticket.kind == last.kind
            if is_like_last and not limit.estimate.known and not last.quota_used_up:
                self._unfit += 1  # it may be refused for the same reason
                if self._unfit < _MAX_UNFIT:
                    return
            self._unfit = 0
            self._substitute = ticket
            self.substitute_accepted_at_s = now + limit.slow_start.timeout_s

    # --- outcomes -------------------------------------------------------------------------------

    def refused(
        self, ticket: Ticket, limit: Limit, now: float, hint_s: float | None, *, quota_used_up: bool
    ) -> bool:
        """Notes a refusal. Returns whether it is in doubt; if not, the limit must learn from it."""
        ticket.refusals += 1
        if ticket is self._substitute:
            self._refused_substitutes += 1
            self._forget_substitute()
        expects_own = now < self.expected_until_s and not limit.estimate.quota_varies
        refusal = DoubtfulRefusal(ticket, limit, hint_s, quota_used_up, expects_own)
        if refusal.is_in_doubt and self._refused_substitutes < (2 if expects_own else 1):
            ticket.held_until_s = now + refusal.held_s
            self._doubt(ticket, is_hinted=hint_s is not None or quota_used_up)
            return True
        refused = [*self._in_doubt, ticket]
        self._in_doubt.clear()
        self._forget_substitute()
        self._refused_substitutes = 0
        if limit.state is LimitState.PROBING:
            self.avoided = ticket
        if limit.state is not LimitState.CLOSED:
            self._lessons = [*self._lessons[1 - _MAX_LESSONS :], _Lesson(ticket, limit.estimate.belief, refused)]
            is_long = hint_s is not None and hint_s > SHORT_S
            self._closure_is_doubtful = is_long and not limit.grants.has_unconfirmed_probe
        elif self._lessons:
            self._lessons[-1].refused += refused
            if ticket.granted_at_s > self._lessons[-1].first.granted_at_s:
                self._closure_is_doubtful = False
        return False

    def _doubt(self, ticket: Ticket, *, is_hinted: bool) -> None:
        ticket.doubts += 1
        ticket.last_was_hinted = is_hinted
        self._in_doubt.append(ticket)

    def ended_otherwise(self, ticket: Ticket, outcome: Outcome, limit: Limit, now: float) -> None:
        """Notes any other outcome of a permit."""
        if outcome is Outcome.SERVED:
            for at, lesson in enumerate(self._lessons if ticket.refusals else ()):
                if ticket in lesson.refused:  # the limit was the cause of its refusal
                    del self._lessons[: at + 1]
                    break
            if limit.state is LimitState.CLOSED and self._lessons:
                self._note_contradiction(ticket, limit, now)
            if ticket is self._substitute:
                self.accept_substitute(limit, now)
        elif ticket is self._substitute:
            self._forget_substitute()

    def _note_contradiction(self, served: Ticket, limit: Limit, now: float) -> None:
        """Puts the refusal that closed the scope in doubt, if a request that was sent later was accepted."""
        first = self._lessons[-1].first
        later_s = first.granted_at_s + _LATER * limit.estimate.refusal_delay_s
        if self._closure_is_doubtful and served.granted_at_s > later_s and first.state is not TicketState.ADMITTED:
            self._closure_is_doubtful = False
            first.held_until_s = limit.opens_at_s
            self._doubt(first, is_hinted=True)
            limit.reopen(now)

    def accept_substitute(self, limit: Limit, now: float) -> None:
        """Decides that each refusal in doubt was its ticket's own."""
        self._forget_substitute()
        self._refused_substitutes = 0
        for ticket in self._in_doubt:
            self.expected_until_s = now + _EXPECTED_FOR_S
            self._last_own = ticket
            ticket.own_refusals += ticket.last_was_hinted
            if ticket.must_end and ticket.is_held:
                self.ended.append(ticket)
            for lesson in self._lessons:
                lesson.refused = [other for other in lesson.refused if other is not ticket]
        self._in_doubt.clear()
        while self._lessons and not self._lessons[-1].refused:
            limit.restore(self._lessons.pop().belief)

    def _forget_substitute(self) -> None:
        self._substitute = None
        self.substitute_accepted_at_s = math.inf
