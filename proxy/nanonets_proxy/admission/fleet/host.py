"""The leader's side: one gate for the claims of all members, and what the leader knows of each member.

A member is known from its hello until its goodbye, until a message to it reaches nobody, or until it was silent for
`MEMBER_EXPIRES_S`. Its claims end with it: a granted one as FAILED, since the upstream may have counted the
request. The answer to a message of an unknown member is `who`, and the member says hello again. All messages have
the form of `bus/messages.py`.

Each message has `sent_at_s`, when it was sent by the clock of this leader. An outcome counts from then, and not
from its arrival: Redis or this leader may have been slow. Likewise, a request counts from when it was `sent`.
A wait counts from the arrival: the member ends it on time, and a wrong estimate must refuse nobody.

Each `alive` of a member has the numbers of all its claims. Messages arrive in order, so a difference means that one
was lost: a claim that the member does not have any more ends, a grant that it has not heard of is told again, and a
waiting claim that this leader does not have is asked for again (`lost`). It also has the places of the member, and
its claims that are paused.

A claim whose permit has ended stays for a while. If its request was refused, it may ask again, at its place in the
order of arrival. And its true cost may be known later than its outcome. The latest `_MAX_ENDED` of each member
stay, or an equal part of `_MAX_ENDED_OF_ALL`.
"""

import math
from collections.abc import Callable
from typing import Final

from nanonets_proxy.admission.fleet.beliefs import Grant
from nanonets_proxy.admission.fleet.bus.messages import MAX_REPLICAS
from nanonets_proxy.admission.fleet.homes.claim import Claim
from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.admission.waiting_room import rejection_error
from nanonets_proxy.core.ratelimit.adaptive.other_gates import merge
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import MAX_PERIOD_S, StaticLimit
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason
from nanonets_proxy.errors import LargerThanLimit, ProxyError

MEMBER_EXPIRES_S: Final = 1.5
_GRANT_LOST_S: Final = 0.4
"""A grant has arrived by then, or never will."""
_MAX_ENDED: Final = 1000
_MAX_ENDED_OF_ALL: Final = 20_000
"""They take about 14 MB. With 500 members, 1,000 of each would take 330 MB."""
_MAX_LOGS: Final = 2 * MAX_REPLICAS
_MOST_HELD_S: Final = 3600.0
"""An older permit counts as of this age: from the age, the gate learns how late a 429 may come."""
_MOST_CLOSED_S: Final = 3600.0
"""No closure that a member knows lasts for longer, or costs more than one 429 an hour."""
_RETRY_S: Final = 1.0


class PeerClaim(Claim):
    """The claim of a request of a member."""

    __slots__ = ("member",)

    is_of_member = True

    def __init__(
        self, number: int, member: "Member", scope: str, lane: str, deadline_s: float, cost: float
    ) -> None:
        super().__init__(number, scope, lane, deadline_s, cost)
        self.member = member

    def granted(self, now_s: float) -> None:
        self.is_granted = True
        self.granted_at_s = now_s
        self.member.answer(self.grant())

    def grant(self) -> Message:
        """Returns the message that tells the grant."""
        message: Message = {"t": "grant", "n": self.number}
        return message if self.report_in_s is None else message | {"report_in": self.report_in_s}

    def rejected(self, error: ProxyError) -> None:
        self.member.claims.pop(self.number, None)
        reason = "larger_than_limit" if isinstance(error, LargerThanLimit) else error.details.get("reason")
        retry_s = min(error.retry_after_s or 0.0, MAX_PERIOD_S)
        message: Message = {"t": "refuse", "n": self.number, "reason": reason, "retry": retry_s}
        if "position" in error.details:
            message["position"] = error.details["position"]
        self.member.answer(message)


class Member:
    """A replica that follows this leader."""

    def __init__(self, name: str, places: int, answer: Callable[[Message], None], now_s: float) -> None:
        self.name = name
        self.places = places
        self.answer = answer
        self.heard_at_s = now_s
        self.claims: dict[int, PeerClaim] = {}
        self.ended: dict[int, PeerClaim] = {}

    def has_waiting(self, most: float) -> bool:
        """Returns whether so many of its requests wait."""
        return len(self.claims) >= most and sum(not claim.is_granted for claim in self.claims.values()) >= most


class Host:
    """Decides for all members with one gate."""

    def __init__(
        self,
        home: LocalHome,
        answer: Callable[[str, Message], None],
        own_log: Callable[[], list[Grant]],
    ) -> None:
        """`answer` sends a message to a member. `own_log` returns what a new one must know: see `Lead`."""
        self.home = home
        self.members: dict[str, Member] = {}
        self._answer = answer
        self._own_log = own_log
        self._logged: dict[str, int] = {}  # the largest number of a grant in the log of each replica
        self.on_members: Callable[[], None] = lambda: None
        """Called when there are more or fewer members."""
        self.most_waiting: float = math.inf
        """How many requests of one member may wait, so that a defective one leaves room to the others."""

    def hello(self, message: Message, now_s: float) -> None:
        """Takes a member in, with its claims in flight and its log. Raises ValueError if there are too many."""
        name, sent_at_s = message["from"], message["sent_at_s"]
        if name not in self.members and len(self.members) >= MAX_REPLICAS - 1:
            raise ValueError(f"a fleet has at most {MAX_REPLICAS} replicas")
        old = self.members.pop(name, None)
        member = Member(name, message["places"], lambda reply: self._answer(name, reply), now_s)
        claims = {} if old is None else old.claims
        granted = {claim.number for claim in claims.values() if claim.is_granted}
        counted = {number for number, claim in message["logged"] if claim in granted}
        known_number = largest = self._logged.pop(name, 0)
        for scope, (ages, opens_in_s) in message["scopes"].items():
            new = [(age_s, cost) for age_s, cost, number in ages if number > known_number and number not in counted]
            grants = [(sent_at_s - age_s, cost) for age_s, cost in new]
            largest = max(largest, *(number for _, _, number in ages), 0)
            opens_at_s = sent_at_s + min(opens_in_s, _MOST_CLOSED_S) if opens_in_s else -math.inf
            merge(self.home.gate.limit_to_tell(scope, now_s), grants, opens_at_s)
        self._logged[name] = largest
        if len(self._logged) > _MAX_LOGS:
            del self._logged[next(iter(self._logged))]
        for number in granted.intersection(message["refused"]):
            self.home.settle(claims.pop(number), Outcome.UNUSED, None, quota_used_up=False)
        for number, scope, lane, wait_s, cost, age_s, is_counted in message["held"]:
            age_s = min(age_s, _MOST_HELD_S)
            known = claims.get(number)
            if known is not None and known.is_granted:
                del claims[known.number]
                if is_counted:  # this leader granted it
                    member.claims[known.number], known.member = known, member
                    self.home.sent(known, sent_at_s - age_s)
                    continue
                # Meanwhile, the replica granted it itself, or it was told before. Then it counts from this hello.
                self.home.settle(known, Outcome.UNUSED, None, quota_used_up=False)
            claim = PeerClaim(number, member, scope, lane, now_s + wait_s, cost)
            claim.is_granted, claim.granted_at_s = True, sent_at_s - age_s
            self.home.adopt(claim, now_s, is_counted=is_counted)
            member.claims[claim.number] = claim
        if old is not None:
            self._end_all(old)
        self.members[name] = member
        self.on_members()
        self._answer(name, {"t": "welcome", "log": self._own_log()})

    def handle(self, message: Message, now_s: float) -> None:
        """Acts on a message of a member."""
        name, what = message["from"], message["t"]
        member = self.members.get(name)
        if member is None:
            self._answer(name, {"t": "who"})
            return
        member.heard_at_s = now_s
        if what == "ask":
            self._ask(member, message, now_s)
        elif what == "bye":
            self.forget(name)
        elif what == "alive":
            self._compare(member, message)
        else:
            number = message["n"]
            claim = member.claims.get(number)
            if claim is None and what == "cost":
                claim = member.ended.get(number)
            if claim is not None:
                self._change(member, claim, what, message)

    def _compare(self, member: Member, message: Message) -> None:
        held, paused = message["held"], set(message["paused"])
        if message["places"] != member.places:  # a reload has changed them
            member.places = message["places"]
            self.on_members()
        for number in message["waits"]:
            claim = member.claims.get(number)
            if claim is None:
                member.answer({"t": "lost", "n": number})
            elif claim.is_granted and claim.granted_at_s + _GRANT_LOST_S < message["sent_at_s"]:
                member.answer(claim.grant() | {"again": True})
        for number in member.claims.keys() - {*message["waits"], *held}:
            self._end(member.claims.pop(number))
        for number, claim in member.claims.items():
            if number in paused:
                self.home.pause(claim)
            else:
                self.home.resume(claim)

    def _ask(self, member: Member, message: Message, now_s: float) -> None:
        number, cost = message["n"], message["cost"]
        claim = member.claims.get(number)
        if claim is not None:  # asked again: an answer was lost
            member.answer(claim.grant() | {"again": True} if claim.is_granted else {"t": "wait", "n": number})
            return
        claim = member.ended.pop(number, None)
        if claim is None:
            claim = PeerClaim(number, member, message["scope"], message["lane"], now_s + message["wait"], cost)
            claim.kind, claim.urgency = message["kind"], message["urgency"]
            if member.has_waiting(self.most_waiting):
                claim.rejected(rejection_error(Reason.QUEUE_FULL, _RETRY_S, cost))
                return
        claim.is_granted, claim.cost = False, cost
        member.claims[number] = claim
        self.home.enter(claim, now_s)
        if number in member.claims and not claim.is_granted:
            member.answer({"t": "wait", "n": number})

    def _change(self, member: Member, claim: PeerClaim, what: str, message: Message) -> None:
        if what == "end":
            del member.claims[claim.number]
            if not claim.is_granted:
                self.home.leave(claim)
                return
            outcome, hint_s = Outcome(message["how"]), message.get("hint")
            member.ended[claim.number] = claim
            while len(member.ended) > min(_MAX_ENDED, _MAX_ENDED_OF_ALL // len(self.members)):
                del member.ended[next(iter(member.ended))]
            quota, ended_at_s = message.get("quota", False), message["sent_at_s"]
            self.home.settle(claim, outcome, hint_s, quota_used_up=quota, ended_at_s=ended_at_s)
        elif what == "leave":
            del member.claims[claim.number]
            self.home.leave(claim)
        elif what == "sent":
            self.home.sent(claim, message["sent_at_s"])
        elif what == "unanswered":
            self.home.reported(claim)
        elif what == "cost":
            self.home.correct_cost(claim, message["cost"])
        elif what == "advice":
            remaining, resets_in_s, named = message["advice"]
            limit = None if named is None else StaticLimit(claim.scope, *named)
            self.home.note_advice(claim, Advice(remaining, resets_in_s, limit))

    def forget(self, name: str) -> None:
        """Ends the claims of a member. Ignores an unknown one."""
        member = self.members.pop(name, None)
        if member is not None:
            self._end_all(member)
            self.on_members()

    def _end_all(self, member: Member) -> None:
        """Ends the claims of a member that is gone, or that no longer has them."""
        member.answer = _ignore
        for claim in list(member.claims.values()):
            self._end(claim)
        member.claims.clear()

    def _end(self, claim: PeerClaim) -> None:
        if claim.is_granted:
            self.home.settle(claim, Outcome.FAILED, None, quota_used_up=False)
        else:
            self.home.leave(claim)

    def expire(self, now_s: float) -> None:
        """Forgets the members that were silent for too long."""
        for member in list(self.members.values()):
            if member.heard_at_s + MEMBER_EXPIRES_S < now_s:
                self.forget(member.name)

    @property
    def places(self) -> int:
        """The places in flight of all members together."""
        return sum(member.places for member in self.members.values())


def _ignore(message: Message) -> None:
    pass
