"""The home of claims at the leader's gate, reached by messages (docs/fleet-protocol.md lists them).

| state | event | next state |
|---|---|---|
| JOINING: messages are kept back | the leader's welcome | JOINED: the kept messages go |
| JOINED | `close`: the leader is silent or lost | closed |

A claim that is asked for stays in `asked` until the leader's first answer. The replica takes its silence as a loss.
A lost `unanswered` is not repeated: the leader waits for it only `REPORT_LOST_S` longer. Any other message that is
lost shows when the leader compares its claims with those of `alive`, which also tells which ones are paused.

A claim that has been told to wait may do so for long. If the leader is silent meanwhile, the replica asks for such
a claim again. Otherwise, claims would wait for a leader that does not hear them any more, or whose answers get
lost.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.admission.fleet.timers import TICK_S
from nanonets_proxy.admission.waiting_room import rejection_error
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason

Message: TypeAlias = dict[str, Any]

UNANSWERED: Final = "the leader does not answer this replica"
_MOST_ASKED: Final = 1000
"""So many questions of all followers together may await an answer. The leader answers them in about 0.05 s. A
follower that hears nothing for 0.25 s does without the leader. After a change of the leader, tens of thousands of
claims may wait."""
_STALE_S: Final = 1.0
"""A later grant is not used: the leader may have forgotten this replica, and count it as used long ago."""
_LATE_S: Final = 0.005
"""A smaller delay between the grant and the request is like a difference of travel times to the upstream."""


class RemoteHome:
    """Passes claims to the leader."""

    def __init__(self, send: Callable[[Message], None], loop: asyncio.AbstractEventLoop, replicas: int) -> None:
        """`replicas`: how many the fleet has."""
        self.joined = False
        self._most_asked = max(1, _MOST_ASKED // replicas)
        self._send_now = send
        self._kept: list[Message] = []
        self._loop = loop
        self._waiting: dict[int, OwnClaim] = {}
        self.asked: set[int] = set()
        """The claims that the leader has not yet answered."""
        self._unasked: dict[int, OwnClaim] = {}  # once `asked` is full, the others wait here, in order
        self._silent = 0  # how often `still_answers` was called since the leader's latest decision

    def join(self) -> None:
        """Sends what was kept back: the leader has said welcome."""
        self.joined = True
        kept, self._kept = self._kept, []
        for message in kept:
            self._send_now(message)

    def _send(self, message: Message) -> None:
        if self.joined:
            self._send_now(message)
        else:
            self._kept.append(message)

    def try_admit(self, claim: OwnClaim, now_s: float) -> bool:  # noqa: ARG002 - only the leader decides
        return False

    def enter(self, claim: OwnClaim, now_s: float) -> None:
        self._waiting[claim.number] = claim
        if len(self.asked) < self._most_asked:
            self.asked.add(claim.number)
            self._ask(claim, now_s)
        else:
            self._unasked[claim.number] = claim

    def _forget(self, number: int) -> OwnClaim | None:
        """Ends the wait of a claim. Returns None if it does not wait."""
        self._unasked.pop(number, None)
        return self._waiting.pop(number, None)

    def _ask_more(self) -> None:
        """Lets claims ask that could not do so before."""
        while self._unasked and len(self.asked) < self._most_asked:
            self.enter(self._unasked.pop(next(iter(self._unasked))), self._loop.time())

    def _ask(self, claim: OwnClaim, now_s: float) -> None:
        self._send(
            {
                "t": "ask",
                "n": claim.number,
                "scope": claim.scope,
                "lane": claim.lane,
                "kind": claim.kind,
                "wait": max(0.0, claim.deadline_s - now_s),
                "urgency": claim.urgency,
                "cost": claim.cost,
            }
        )

    def adopt(self, claim: OwnClaim, now_s: float) -> None:  # noqa: ARG002 - a home may need it
        """Goes on as after the grant: the hello has told the leader of it."""
        self._report_later(claim)

    def leave(self, claim: OwnClaim) -> None:
        number = claim.number
        if number not in self._unasked:
            self._send({"t": "leave", "n": number})
        self._forget(number)
        self.asked.discard(number)
        self._ask_more()

    def settle(
        self, claim: OwnClaim, outcome: Outcome, retry_after_s: float | None, *, quota_used_up: bool
    ) -> None:
        message: Message = {"t": "end", "n": claim.number, "how": outcome.value}
        if retry_after_s is not None:
            message["hint"] = retry_after_s
        if quota_used_up:
            message["quota"] = True
        self._send(message)

    def pause(self, claim: OwnClaim) -> None:
        """Does nothing: the next `alive` tells it, as of `resume`."""

    def resume(self, claim: OwnClaim) -> None: ...

    def correct_cost(self, claim: OwnClaim, cost: float) -> None:
        self._send({"t": "cost", "n": claim.number, "cost": cost})

    def note_advice(self, claim: OwnClaim, advice: Advice) -> None:
        limit = advice.limit
        named = None if limit is None else [limit.count, limit.period_s, limit.unit]
        self._send({"t": "advice", "n": claim.number, "advice": [advice.remaining, advice.resets_in_s, named]})

    def close(self) -> None:
        self._waiting.clear()
        self.asked.clear()
        self._unasked.clear()
        self._kept.clear()
        self._send_now = _discard

    def still_answers(self, now_s: float) -> bool:
        """Returns whether the leader answers, as far as is known. The replica calls it every half second.

        If claims wait and no answer has come since the last call, it asks for one of them again. A leader
        that stands still may answer a second later. If it stands still for longer, its beats are missing too.
        """
        if not self._waiting:
            self._silent = 0
            return True
        if self._silent == 1:
            self._ask(next(iter(self._waiting.values())), now_s)
        self._silent += 1
        return self._silent <= 3

    def waiting(self) -> list[int]:
        """Returns the numbers of the claims that wait for the leader's decision."""
        return [number for number in self._waiting if number not in self._unasked]

    # --- requests without a response ------------------------------------------------------------------

    def _report_later(self, claim: OwnClaim) -> None:
        """Tells the leader if no response comes in time. Only then the request counts as accepted there."""
        if claim.is_granted and claim.report_in_s is not None:
            self._loop.call_later(claim.report_in_s, self._when_due, claim, claim.granted_at_s)

    def _when_due(self, claim: OwnClaim, granted_at_s: float) -> None:
        # If this process stood still, the response may be here already, unread.
        self._loop.call_later(TICK_S, self._report, claim, granted_at_s)

    def _report(self, claim: OwnClaim, granted_at_s: float) -> None:
        if claim.is_granted and claim.granted_at_s == granted_at_s:
            self._send({"t": "unanswered", "n": claim.number})

    # --- the leader's answers -----------------------------------------------------------------------

    def answer(self, message: Message) -> None:
        """Acts on the leader's answer to a claim."""
        number, what = message["n"], message["t"]
        self.asked.discard(number)
        if what == "lost":
            if number in self._waiting and number not in self._unasked:
                self.enter(self._waiting[number], self._loop.time())
            self._ask_more()
            return
        self._ask_more()
        self._silent = 0
        if what == "wait":
            if number in self._waiting:
                self._waiting[number].must_wait()
            return
        claim = self._forget(number)
        if claim is None:
            # The request has gone meanwhile; its `leave` may have crossed the grant. A grant that is told again may
            # already be in use.
            if what == "grant" and not message.get("again"):
                self._send({"t": "end", "n": number, "how": Outcome.UNUSED.value})
            return
        if what == "grant":
            now_s = self._loop.time()
            late_s = now_s - message["sent_at_s"]
            if late_s > _STALE_S:
                self.enter(claim, now_s)
                return
            claim.report_in_s = message.get("report_in")
            claim.granted(now_s)
            self._report_later(claim)
            if claim.is_granted and (late_s > _LATE_S or message.get("again")):
                self._send({"t": "sent", "n": number})
        else:
            reason, position = Reason(message["reason"]), message.get("position")
            claim.rejected(rejection_error(reason, message["retry"], claim.cost, position))


def _discard(message: Message) -> None:
    pass
