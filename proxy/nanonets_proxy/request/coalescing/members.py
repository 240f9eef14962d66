"""The members of a group of identical GETs, and the writes that close groups."""

import asyncio
import copy
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from nanonets_proxy.core.coalescing.groups import Group, Groups
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.errors import InternalError, ProxyError
from nanonets_proxy.request.coalescing.whole_body import MAX_WHOLE_BYTES, may_be_held, read_whole
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.shared import SharedResponse
from nanonets_proxy.upstream.errors import UpstreamError

if TYPE_CHECKING:
    from nanonets_proxy.request.coalescing.coalescing import Coalescing

Result: TypeAlias = "SharedResponse | UpstreamError | Group[Follower] | None"
"""What a follower gets. A group: lead it. None: be alone."""


class Follower:
    """A GET that waits for the response to its group's leader."""

    __slots__ = ("lane", "result")

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()


class Leader:
    """The leader's side of a group, while it is forwarded. Implements `Sharing`."""

    __slots__ = ("_coalescing", "_group", "_task", "concerns_others")

    def __init__(self, coalescing: "Coalescing", group: Group[Follower]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._coalescing = coalescing
        self._group = group
        self._task = task
        self.concerns_others = True

    @property
    def is_wanted(self) -> bool:
        return bool(self._group.followers)

    def begin_attempt(self, context: RequestContext, key: ApiKey) -> None:  # noqa: ARG002 - as `Sharing`
        self._coalescing.groups.note_sending(self._group)

    def end_attempt(self, context: RequestContext) -> None:
        """Does nothing: another attempt may follow."""

    async def receive(self, context: RequestContext, received: Received) -> Received:
        """Gives the followers the response, or lets them be alone if it cannot be held."""
        coalescing, group = self._coalescing, self._group
        if not group.followers:
            coalescing.groups.end(group)
            return received
        coalescing.groups.close(group)
        if not may_be_held(received):
            coalescing.note_large(context.target)
            self._give(None)
            return received
        body, is_whole = await read_whole(received, coalescing.budget)
        if is_whole:
            forms, request_id = context.response.forms, context.head.request_id
            shared = SharedResponse(
                *(received.head, body, received.connection.trailers, received.hint, forms, request_id),
                coalescing.budget,
            )
            shared.readers = 1
            shared.readers += len(self._give(shared))
            shared.release()
        else:
            if len(body) > MAX_WHOLE_BYTES:
                coalescing.note_large(context.target)
            self._give(None)
        return replace(received, body_start=body)

    def close(self) -> None:
        """Lets no further GET join."""
        self._coalescing.groups.close(self._group)

    def lose_caller(self) -> bool:
        """Returns whether the response is wanted although the caller has hung up."""
        return self._coalescing.groups.lose_caller(self._group, self._task.cancel)

    def fail(self, error: Exception) -> None:
        """Ends the leader without a response."""
        if isinstance(error, UpstreamError):
            self._give(error)
        elif isinstance(error, InternalError) or not isinstance(error, ProxyError | ConnectionError):
            self._give(None)  # otherwise one follower after another could meet the same defect

    def _give(self, result: Result) -> list[Follower]:
        """Ends the group. Returns the followers that were still there to get the result."""
        followers = [each for each in self._coalescing.groups.end(self._group) if not each.result.done()]
        for follower in followers:
            # A raised error collects the traceback of its task.
            follower.result.set_result(copy.copy(result) if isinstance(result, UpstreamError) else result)
        return followers


class Writes:
    """The requests that may change what GETs return. Implements `Sharing`."""

    __slots__ = ("_groups", "concerns_others")

    is_wanted = False

    def __init__(self, groups: Groups[Follower]) -> None:
        self._groups = groups
        self.concerns_others: object = groups.sent if groups.kept is None else True

    def begin_attempt(self, context: RequestContext, key: ApiKey) -> None:  # noqa: ARG002 - as `Sharing`
        self._groups.note_write(context.record.method, context.target)

    def end_attempt(self, context: RequestContext) -> None:
        self._groups.note_write(context.record.method, context.target)

    async def receive(self, context: RequestContext, received: Received) -> Received:
        """Notes the end of a write before its caller can know of it."""
        self._groups.note_write(context.record.method, context.target)
        return received
