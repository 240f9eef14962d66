"""Lets identical GETs that are in flight at the same time share one upstream request.

`core/coalescing/groups.py` has the states of a group and decides which GETs join it. A follower gets one of these:

    a response      the leader's, with the follower's own Location, Server-Timing and Via
    an error        the upstream failed the leader, after the leader's retries. The follower is not sent as well: a
                    failing upstream would get the load of all followers at once, from which sharing protects it
    the lead        the leader ended for a reason of its own, such as its deadline or its caller's limits
    to be alone     the response is too large to hold, or the leader met a defect

A leader whose caller hangs up goes on while it has followers (`CallerRequest.is_wanted`): it keeps its place in the
queue, and what was sent is not sent twice. The response passes through memory only if it has followers, so a caller
that reads slowly delays nobody.

The leader takes the permit, pays with its lane, and has the attempt in the ledger. A follower takes nothing from
its caller's daily budget, unless it is sent after all. It only joins while its caller has a request left.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

from nanonets_proxy.core.coalescing.groups import Group, Groups, GroupState
from nanonets_proxy.core.http.methods import SAFE_METHODS
from nanonets_proxy.errors import BudgetUsedUp
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.coalescing.identity import Identity
from nanonets_proxy.request.coalescing.members import Follower, Leader, Writes
from nanonets_proxy.request.context import Forward, RequestContext, Services
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.response.heads import ResponseHeads
from nanonets_proxy.request.response.shared import SharedBody, SharedResponse
from nanonets_proxy.upstream.errors import UpstreamError

_MOST_LARGE_TARGETS: Final = 256
# In Python 3.11, each look-up of a member in its enum costs a call.
_ENDED: Final = GroupState.ENDED


class Coalescing:
    """Forwards the requests of one environment. `forward_alone` sends a request whatever others do."""

    def __init__(
        self, policy: HandlerPolicy, services: Services, forward_alone: Forward, heads: ResponseHeads
    ) -> None:
        self._identity = identity = Identity(policy, services)
        self._forward_alone = forward_alone
        if policy.revalidate:
            # Imported here: most processes keep no response.
            from nanonets_proxy.request.coalescing.revalidation import Revalidation

            self._forward_alone = Revalidation(policy, services, identity, forward_alone).forward
        self._heads = heads
        self._authorizer = services.authorizer
        self._counter = services.metrics.coalesced
        self.budget = services.body_budget
        self.groups: Groups[Follower] = services.coalescing_groups
        self._writes = Writes(self.groups)
        self._large_targets: dict[str, None] = {}

    def forward(self, context: RequestContext) -> Awaitable[None]:
        """Forwards a request, alone or together with identical ones. Raises as `Forwarder.forward`."""
        record, target = context.record, context.target
        if record.method != "GET":
            if record.method not in SAFE_METHODS:
                context.sharing = self._writes
        elif context.may_be_coalesced and context.head.body_length == 0 and target not in self._large_targets:
            key = self._identity.of(context)
            group = self.groups.find(key, record.caller)
            if group is not None:
                return self._follow(group, context)
            return self._lead(self.groups.lead(key, record.caller, target), context)
        return self._forward_alone(context)

    async def _lead(self, group: Group[Follower], context: RequestContext) -> None:
        leader = context.sharing = Leader(self, group)
        context.request.is_wanted = leader.lose_caller
        try:
            await self._forward_alone(context)
        except Exception as error:
            leader.fail(error)
            raise
        finally:
            context.request.is_wanted = None
            if group.state is not _ENDED:
                self.pass_on(group)

    async def _follow(self, group: Group[Follower], context: RequestContext) -> None:
        record = context.record
        follower = Follower(record.caller)
        self.groups.follow(group, follower)
        was_counted = self._uncount(record)
        began_s = follower.result.get_loop().time()
        try:
            result = await follower.result
        except asyncio.CancelledError:
            self._leave(group, follower)
            raise
        if result is None:
            self._count(context, was_counted=was_counted)
            await self._forward_alone(context)
        elif isinstance(result, Group):
            record.wait_s += follower.result.get_loop().time() - began_s
            try:
                self._count(context, was_counted=was_counted)
            except BudgetUsedUp:
                self.pass_on(result)
                raise
            await self._lead(result, context)
        else:
            record.is_coalesced = True
            self._counter.inc()
            if isinstance(result, UpstreamError):
                raise result
            await self._relay(result, context)

    def _uncount(self, record: AccessRecord) -> bool:
        """Gives back what a follower took from its caller's budget. Returns whether it took anything."""
        if not record.is_counted or self._authorizer is None:
            return False
        self._authorizer.give_back(record)
        record.is_counted = False
        return True

    def _count(self, context: RequestContext, *, was_counted: bool) -> None:
        """Counts a follower that is sent after all. Raises BudgetUsedUp."""
        if was_counted and self._authorizer is not None:
            record = context.record
            record.is_counted = self._authorizer.take(record.caller, record.method, context.target)

    def _leave(self, group: Group[Follower], follower: Follower) -> None:
        """Ends a follower whose caller has hung up, perhaps after it got its result."""
        if (end_leader := self.groups.leave(group, follower)) is not None:
            end_leader()
        result = None if follower.result.cancelled() or not follower.result.done() else follower.result.result()
        if isinstance(result, Group):
            self.pass_on(result)
        elif isinstance(result, SharedResponse):
            result.release()

    def pass_on(self, group: Group[Follower]) -> None:
        """Lets the first follower lead that is still there."""
        while (follower := self.groups.pass_on(group)) is not None:
            if not follower.result.done():
                follower.result.set_result(group)
                return

    def note_large(self, target: str) -> None:
        """Notes a target whose response cannot be shared, so that later GETs need not wait to find out."""
        if len(self._large_targets) >= _MOST_LARGE_TARGETS:
            del self._large_targets[next(iter(self._large_targets))]
        self._large_targets[target] = None

    async def _relay(self, shared: SharedResponse, context: RequestContext) -> None:
        """Relays a response to a follower. Raises ConnectionError if the caller is lost."""
        record, response = context.record, context.response
        try:
            head = shared.head_for(record.request_id)
            response.forms, record.status = shared.forms, head.status
            body = SharedBody(shared)
            lines = self._heads.write(context, head, shared.hint)
            if not response.begin(body, head, lines, b""):
                await response.follow(body, _do_nothing)
        finally:
            shared.release()


def _do_nothing() -> None:
    """For a follower that reads nothing: it has no place in flight to give back."""
