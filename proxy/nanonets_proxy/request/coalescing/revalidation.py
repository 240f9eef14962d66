"""Asks the upstream whether a kept response is still the same, instead of for the response itself.

`core/coalescing/kept_responses.py` has the states of a response. A GET is sent with `If-None-Match` if there is a
response to an identical GET. On a 304, its caller gets the kept response (RFC 9111 §4.3). A GET with a condition or
a range of its own is forwarded as it is.
"""

import copy
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final

from nanonets_proxy.core.coalescing.kept_responses import Arriving, KeptResponses
from nanonets_proxy.core.http.path_pattern import any_path
from nanonets_proxy.core.http.revalidation import fields_to_keep, kept_tag, may_be_revalidated, updated_fields
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.request.coalescing.identity import Identity
from nanonets_proxy.request.coalescing.members import Leader
from nanonets_proxy.request.coalescing.whole_body import may_be_held, read_whole
from nanonets_proxy.request.context import Forward, RequestContext, Services
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.request.received import Received
from nanonets_proxy.upstream.response_head import ResponseHead, size_of

# RFC 9209 §2.3.4: the upstream's status, which is not that of the response.
_CONFIRMED: Final = (b"Proxy-Status", b"nanonets-proxy; received-status=304")


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A kept 200: its head has the fields that apply to each use."""

    tag: bytes
    head: ResponseHead
    body: bytes


class Revalidation:
    """Forwards the requests of one environment. `forward_alone` sends a request."""

    def __init__(
        self, policy: HandlerPolicy, services: Services, identity: Identity, forward_alone: Forward
    ) -> None:
        groups = services.coalescing_groups
        if groups.kept is None:
            groups.kept = KeptResponses[KeptResponse]()
        self.kept: KeptResponses[KeptResponse] = groups.kept
        self.identity = identity
        self.budget = services.body_budget
        self.count = services.metrics.revalidations.labels
        self._forward_alone = forward_alone
        self._is_revalidated = any_path(policy.revalidate)

    def forward(self, context: RequestContext) -> Awaitable[None]:
        """Forwards a request. Raises as `Forwarder.forward`."""
        request = context.request
        if (
            context.record.method == "GET"
            and self._is_revalidated(context.target)
            and context.head.body_length == 0
            and may_be_revalidated(request.names, request.values)
        ):
            context.sharing = Revalidating(self, context)
        return self._forward_alone(context)

    def tag_of(self, names: tuple[bytes, ...], values: tuple[bytes, ...]) -> bytes | None:
        """Returns the ETag of a 200 with these fields that may be kept; None if it may not."""
        return kept_tag(names, values, self.identity.may_differ)


class Revalidating:
    """One GET while it is forwarded. Implements `Sharing`, around that of its group."""

    __slots__ = (
        *("_arriving", "_asked", "_group", "_head", "_identity", "_identity_bytes", "_owner"),
        "concerns_others",
    )

    def __init__(self, owner: Revalidation, context: RequestContext) -> None:
        self._owner = owner
        self._identity = owner.identity.of(context)
        # It holds the request's fields and target, and the store has the target's segments too.
        self._identity_bytes = len(context.target) + sum(map(len, self._identity))
        self._group = context.sharing if isinstance(context.sharing, Leader) else None
        self._head = context.head
        self._asked: KeptResponse | None = None
        """The response that the current attempt asks about."""
        self._arriving: Arriving | None = None
        self.concerns_others = True

    @property
    def is_wanted(self) -> bool:
        return self._group is not None and self._group.is_wanted

    def begin_attempt(self, context: RequestContext, key: ApiKey) -> None:
        """Adds the condition, or removes that of an earlier attempt."""
        if self._group is not None:
            self._group.begin_attempt(context, key)
        owner = self._owner
        owner.kept.use_key(key)
        self._end_arrival()
        self._arriving = owner.kept.begin(context.target)
        self._asked = asked = owner.kept.find(self._identity)
        context.head = self._head
        if asked is not None:
            context.head = copy.copy(self._head)
            context.head.fields += b"If-None-Match: %b\r\n" % asked.tag

    def end_attempt(self, context: RequestContext) -> None:
        if self._group is not None:
            self._group.end_attempt(context)
        self._end_arrival()

    def _end_arrival(self) -> None:
        if self._arriving is not None:
            self._owner.kept.end(self._arriving)
            self._arriving = None

    async def receive(self, context: RequestContext, received: Received) -> Received:
        """Returns the kept response in place of a 304, and keeps another one. Raises as the connection does."""
        owner, status, asked = self._owner, received.head.status, self._asked
        if status == 304 and asked is not None:
            owner.count("unchanged").inc()
            received = self._confirmed(received, asked)
            context.record.details = {"received_status": 304}
        elif status == 200:
            if asked is not None:
                owner.count("changed").inc()
            received = await self._keep(received)
        elif status < 500:
            owner.kept.drop(self._identity)
        return received if self._group is None else await self._group.receive(context, received)

    def _confirmed(self, received: Received, asked: KeptResponse) -> Received:
        """Returns the kept response with the fields of the 304."""
        owner, head = self._owner, received.head
        names, values = updated_fields((asked.head.names, asked.head.values), head.names, head.values)
        if owner.tag_of(names, values) is None:
            owner.kept.drop(self._identity)
        else:
            kept = fields_to_keep(names, values)
            updated = KeptResponse(asked.tag, asked.head.with_fields(*kept), asked.body)
            owner.kept.update(self._identity, asked, updated, self._size_of(updated))
        name, value = _CONFIRMED
        return replace(
            received,
            head=asked.head.with_fields((*names, name), (*values, value)),
            body_start=asked.body,
        )

    def _size_of(self, response: KeptResponse) -> int:
        head = response.head
        return self._identity_bytes + len(response.body) + size_of(head.names, head.values)

    async def _keep(self, received: Received) -> Received:
        """Keeps a 200 if it may be kept. Returns it with the part of its body that was read."""
        owner, head, arriving = self._owner, received.head, self._arriving
        owner.kept.drop(self._identity)
        tag = owner.tag_of(head.names, head.values)
        if tag is None or arriving is None or arriving.is_outdated or not may_be_held(received):
            return received
        if self._group is not None:
            self._group.close()  # the head has arrived, although the body may take long
        body, is_whole = await read_whole(received, owner.budget)
        if is_whole:
            owner.budget.memory_bytes -= len(body)
            if not received.connection.trailers:
                kept = fields_to_keep(head.names, head.values)
                response = KeptResponse(tag, head.with_fields(*kept), body)
                owner.kept.keep(self._identity, arriving, response, self._size_of(response))
        return replace(received, body_start=body)
