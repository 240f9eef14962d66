"""Sends one job by the path of a caller's request, and records each step in the store before it counts.

The store is told before the first byte is sent (`JobExchange.begin`, which `request/attempts.py` awaits), and when
the judge decides that the request is sent again (`send_again`). Its response goes to the store instead of to a
connection (`JobResponse`).
"""

import contextlib
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from nanonets_proxy.core.api.routes import route_of
from nanonets_proxy.core.http.request_head import RequestHead
from nanonets_proxy.core.jobs.lifecycle import JobEvent
from nanonets_proxy.core.ratelimit.tickets import Reason
from nanonets_proxy.errors import InternalError, RateLimited
from nanonets_proxy.jobs.directory import BodyFile, JobDirectory
from nanonets_proxy.jobs.records import INLINE_BYTES, Result, Work
from nanonets_proxy.jobs.store_thread import StoreFault, store_fault
from nanonets_proxy.jobs.writer import StoreWriter
from nanonets_proxy.request.access_record import AccessRecord
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.request.response.relay import RelayedResponse
from nanonets_proxy.request.target_plans import start_of_line
from nanonets_proxy.server.connection.caller_request import HTTP_1_1, CallerRequest, HeaderSection
from nanonets_proxy.upstream.errors import (
    EgressProxyRefused,
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamForbiddenAddress,
    UpstreamRefused,
    UpstreamTlsCertificate,
    UpstreamTlsProtocol,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.stored_body import StoredBody

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from nanonets_proxy.jobs.database import JobDatabase
    from nanonets_proxy.server.connection.caller_connection import CallerConnection
    from nanonets_proxy.upstream.response_head import ResponseHead

NOT_SENT: Final = (
    *(EgressProxyRefused, UpstreamConnectTimeout, UpstreamDnsFailed, UpstreamForbiddenAddress, UpstreamRefused),
    *(UpstreamTlsCertificate, UpstreamTlsProtocol, UpstreamUnreachable),
)
"""The errors before a connection exists."""
_SECTION: Final = HeaderSection(HTTP_1_1, (), (), 0, keep_alive=True)


class JobGone(Exception):
    """The job is no longer queued: its caller has cancelled it, or another process sends it."""


class _Open:
    """Stands for the connection of a caller that never hangs up and reads everything at once."""

    is_full = False

    @property
    def transport(self) -> "_Open":
        return self

    @property
    def writing(self) -> "_Open":
        return self

    def is_reading(self) -> bool:
        return True


_NEVER_GONE: Final = cast("CallerConnection", _Open())


class JobResponse(RelayedResponse):
    """Keeps the response: `head` without its empty line and without framing, and the body."""

    __slots__ = ("body", "head")

    def __init__(self, request: CallerRequest, body: BodyFile) -> None:
        super().__init__(request, 0.0)
        self.head = b""
        self.body = body

    def frame(self, head: "ResponseHead", may_stay: bool) -> bytes:  # noqa: ARG002 - as for a connection
        return b""  # `send_result` adds the length when a caller fetches the response

    def send_interim(self, head: "ResponseHead") -> None:
        """Drops a 1xx: nobody waits for it."""

    def abort(self) -> None:
        """Does nothing: no caller has a part of the response."""

    def _write(self, *pieces: bytes) -> None:
        first, *rest = pieces
        if not self.head:  # the first piece has the whole head, perhaps with a small body behind it
            head, _, first = first.partition(b"\r\n\r\n")
            self.head = head + b"\r\n"
        try:
            for piece in (first, *rest):
                self.body.write(piece)
        except OSError as error:
            raise InternalError("The response could not be stored.", reason=error.strerror or "disk") from None


class JobExchange:
    """One job on its way to the upstream, and what the store knows of it."""

    def __init__(self, work: Work, writer: StoreWriter, owner: str, on_send: "Callable[[Work], None]") -> None:
        """Calls `on_send` each time that the job is about to be sent."""
        self._on_send = on_send
        self._work = work
        self._writer = writer
        self._owner = owner
        self._is_recorded = False  # the store may have it as SENDING
        self.is_sending = False
        """Whether the upstream may have received a byte."""
        self.context: RequestContext | None = None
        self.body: StoredBody | None = None
        """The request's body, if it is in a file."""

    def waits_on(self, error: RateLimited) -> bool:
        """Returns True unless the upstream refuses this job while it accepts others."""
        return error.details.get("reason") != Reason.REFUSED_ALONE.value

    async def begin(self) -> None:
        """Records that the request is being sent. Nothing may be sent before it returns.

        Raises JobGone, InternalError if the stored body is gone, or StoreFault if it cannot be recorded.
        """
        if self.is_sending:
            return
        assert self.context is not None
        if self.body is not None:
            try:
                self.body.open()
            except FileNotFoundError:
                raise InternalError("The stored request was removed.", reason="missing") from None
            except OSError as error:  # such as too many open files: it may pass
                raise store_fault(error) from None
        was_recorded, self._is_recorded = self._is_recorded, True
        work, owner = self._work, self._owner

        def send(database: "JobDatabase") -> tuple[bool, bytes | None]:
            if was_recorded:  # `send_again` may have failed
                database.change(work.id, JobEvent.RETURN, owner=owner)
            return database.change(work.id, JobEvent.SEND, owner=owner), database.body(work.id)

        is_taken, body = await self._writer.run(send)
        if not is_taken:
            self._is_recorded = False
            raise JobGone
        self.is_sending = True
        self._on_send(work)
        self.context.payload = body or b""
        record = self.context.record
        # The job's time in the queue is no caller's wait: metrics of requests begin here.
        record.started_s, record.wait_s = perf_counter(), 0.0

    def send_again(self) -> None:
        """Records that the request was certainly not executed, and waits to be sent again."""
        self.is_sending = False
        if self.body is not None:
            self.body.close()
        if self._is_recorded:
            self._writer.run(
                lambda database: database.change(self._work.id, JobEvent.RETURN, owner=self._owner)
            ).add_done_callback(_ignore)

    async def end(self, event: JobEvent, reason: str, result: Result | None) -> bool:
        """Records the end of the job. Returns False if the store has another end of it. Raises StoreFault."""
        return await self._writer.run(
            lambda database: database.change(self._work.id, event, owner=self._owner, reason=reason, result=result)
        )


def _ignore(future: "asyncio.Future[Any]") -> None:
    """Takes note of a failure, which `begin` repairs: until then the job counts as being sent."""
    if not future.cancelled():
        with contextlib.suppress(StoreFault):
            future.result()


@contextlib.contextmanager
def job_context(work: Work, exchange: JobExchange, directory: JobDirectory) -> "Iterator[RequestContext]":
    """Yields the context in which a job is forwarded."""
    request = CallerRequest(work.method, work.target, _SECTION)
    request.connection = _NEVER_GONE
    record = AccessRecord(request, work.lane.caller)
    record.request_id, record.scope, record.route = work.request_id, work.lane.scope, route_of(work.target)
    record.pages, record.received_bytes = work.pages, work.body_bytes
    response = JobResponse(request, directory.response_body(work.id))
    start = start_of_line(work.method, work.target)
    context = RequestContext(request, record, response, _head(work), work.target, start, work.cost, job=exchange)
    exchange.context = context
    if work.body_bytes <= INLINE_BYTES:
        yield context
        return
    with StoredBody(directory.request_body(work.id).path, work.body_bytes) as body:
        context.body = exchange.body = body
        yield context


def _head(work: Work) -> RequestHead:
    """Returns the head of the stored request. Its preferences are fulfilled, and its caller was identified."""
    head = RequestHead()
    head.host = work.host
    head.origin = head.referer = head.sec_fetch_site = None
    head.request_id = head.caller = head.credentials = head.cost = None
    head.is_preflight = head.expect_continue = False
    head.prefer = ()
    head.priority = (b"u=%d" % work.lane.urgency,)
    head.trace = None
    head.body_length = work.body_bytes
    head.fields = work.fields
    return head
