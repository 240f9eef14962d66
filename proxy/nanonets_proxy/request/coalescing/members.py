"""The members of a group of identical GETs, and the writes that close groups."""

import asyncio
import copy
from typing import TYPE_CHECKING, Final, TypeAlias

from nanonets_proxy.core.coalescing.groups import Group, Groups
from nanonets_proxy.errors import InternalError, ProxyError
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.received import Received
from nanonets_proxy.request.response.shared import SharedResponse
from nanonets_proxy.upstream.errors import UpstreamError

if TYPE_CHECKING:
    from nanonets_proxy.request.coalescing.coalescing import Coalescing

MAX_SHARED_BYTES: Final = 256 * 1024
"""A larger body is not held: each follower sends its own request."""

_ENDLESS: Final = b"text/event-stream"

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

    def begin_attempt(self, context: RequestContext) -> None:  # noqa: ARG002 - as `Sharing`
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
        head, source = received.head, received.connection
        if (head.body_length or 0) > MAX_SHARED_BYTES or (head.content_type or b"").startswith(_ENDLESS):
            coalescing.note_large(context.target)
            self._give(None)
            return received
        budget, held, is_whole = coalescing.budget, 0, source.is_complete
        body = received.body_start + source.read_nowait()
        try:
            while (has_room := budget.reserve_memory(len(body) - held)) and not is_whole:
                held = len(body)
                piece = await source.read() if held <= MAX_SHARED_BYTES else b""
                is_whole = source.is_complete or not piece
                body += piece + source.read_nowait()
            held = len(body) if has_room else held
            if has_room and len(body) <= MAX_SHARED_BYTES:
                forms, request_id = context.response.forms, context.head.request_id
                shared = SharedResponse(head, body, source.trailers, received.hint, forms, request_id, budget)
                shared.readers = len(self._give(shared))
                held = 0 if shared.readers else held
            else:
                if len(body) > MAX_SHARED_BYTES:
                    coalescing.note_large(context.target)
                self._give(None)
        finally:
            budget.memory_bytes -= held
        return received._replace(body_start=body)

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
        self.concerns_others = groups.sent

    def begin_attempt(self, context: RequestContext) -> None:
        self._groups.note_write(context.record.method, context.target)

    end_attempt = begin_attempt

    async def receive(self, context: RequestContext, received: Received) -> Received:
        """Notes the end of a write before its caller can know of it."""
        self._groups.note_write(context.record.method, context.target)
        return received
