"""Takes a request as a job: `Prefer: respond-async[, wait=N]` (RFC 7240 §4.1, §4.3), with an idempotency key.

The caller gets 202 once the job is on the disk, or the job's response if that comes within `wait` seconds.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.core.http.headers import values_of
from nanonets_proxy.core.http.prefer import wait_s
from nanonets_proxy.core.http.priority import urgency
from nanonets_proxy.core.jobs.idempotency import Fingerprint, idempotency_key
from nanonets_proxy.core.jobs.lifecycle import UNFINISHED
from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.errors import IdempotencyKeyReused, JobsStorageFull, JobsUnavailable, ProxyError
from nanonets_proxy.jobs.directory import BodyFile, remove
from nanonets_proxy.jobs.records import Content, JobView, KnownKey, NewJob, NoRoom, Work, too_many
from nanonets_proxy.jobs.responses import PREFIX, send_result, state_response
from nanonets_proxy.jobs.store_thread import StoreFault, store_fault
from nanonets_proxy.request.authorizer import Authorizer
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.server.connection.body_times import BodyTimes
from nanonets_proxy.server.connection.caller_body import CallerBody
from nanonets_proxy.server.connection.caller_request import HTTP_1_1
from nanonets_proxy.upstream.stored_body import StoredBody

if TYPE_CHECKING:
    from nanonets_proxy.jobs.jobs import Jobs

BACKGROUND: Final = 7
"""The urgency of a job without a Priority field: RFC 9218 §4.1 calls it background."""
_LOOK_S: Final = 0.5  # another process may run the job that a caller waits for
_MOST_LOOKS_PER_S: Final = 200.0  # of all callers together: each takes the event loop 0.1 ms
_EXPECT: Final = b"expect:"
# A job that is stored gets its 202 all the same: after an error, its caller would submit it again.
_UNREADABLE: Final = (JobsStorageFull, JobsUnavailable)


class Submission:
    """One request that becomes a job."""

    def __init__(
        self, jobs: "Jobs", context: RequestContext, times: BodyTimes, authorizer: Authorizer | None
    ) -> None:
        self._jobs = jobs
        self._context = context
        self._times = times
        self._authorizer = authorizer
        self._counted_bytes = 0
        """The part of `Jobs.incoming_bytes` that is this request's."""
        self._memory_bytes = 0
        """The part of `Jobs.unwritten_bytes` that is this request's."""

    async def run(self) -> None:
        """Stores the job and responds. Raises a ProxyError, ConnectionError or CancelledError."""
        context, jobs = self._context, self._jobs
        names, values, caller = context.request.names, context.request.values, context.record.caller
        key = idempotency_key(values_of(b"idempotency-key", names, values))
        fingerprint = None  # only a repeated key needs it, and a large body takes long
        if key is not None:
            target = context.target.encode("utf-8", "surrogateescape")
            fingerprint = Fingerprint(context.method, target, values_of(b"content-type", names, values))
            known = await jobs.read(lambda database: database.with_key(caller, key))
            if known is not None:  # the body is read, but not stored again
                async for piece in self._pieces():
                    fingerprint.add(piece)
                await self._respond(_same(known, fingerprint.digest()))
                return
        job, file = await self._receive_job(key, fingerprint)
        await self._respond(await self._store_once(job, file))

    async def _receive_job(self, key: str | None, fingerprint: Fingerprint | None) -> tuple[NewJob, BodyFile]:
        """Receives the body, and returns the job. Nothing is left of a body that cannot be received."""
        context, jobs, head = self._context, self._jobs, self._context.head
        await jobs.check_room(head.body_length or 0)
        work_id = secrets.token_urlsafe(16)
        file = jobs.directory.request_body(work_id)
        try:
            body = await self._receive(file, fingerprint)
            if context.page_count is not None:
                context.cost = await self._count_pages(body, file)
        except BaseException:
            self._uncount()
            file.discard()
            raise
        work = Work(
            id=work_id,
            lane=JobLane(context.record.caller, context.record.scope, _urgency(context)),
            cost=context.cost,
            pages=context.record.pages,
            request_id=context.record.request_id,
            method=context.method,
            target=context.target,
            host=head.host,
            fields=_stored_fields(head.fields, body.length if head.body_length is None else None),
            body_bytes=body.length,
            created_s=time.time(),
        )
        return NewJob(work, key, b"" if fingerprint is None else fingerprint.digest(), body), file

    async def _store_once(self, job: NewJob, file: BodyFile) -> JobView:
        """Returns the stored job, or the earlier one with its idempotency key.

        The job is stored even if its caller hangs up now: nobody could tell whether the caller knows of it. So it
        uses its part of the daily budget from now on, although nothing is sent yet, unless it cannot be stored.
        """
        record = self._context.record
        was_counted, record.is_counted = record.is_counted, False
        stored = self._jobs.spawn(self._store(job, file))
        try:
            view = await asyncio.shield(stored)
        except ProxyError:
            record.is_counted = was_counted
            raise
        except asyncio.CancelledError:
            if was_counted:
                stored.add_done_callback(partial(self._give_back, job.work.id))
            raise
        record.is_counted = was_counted and view.id != job.work.id
        return view

    def _give_back(self, work_id: str, stored: "asyncio.Task[JobView]") -> None:
        """Uncounts a request whose caller has hung up, if it has not become a job of its own."""
        if not stored.cancelled() and (stored.exception() is not None or stored.result().id != work_id):
            assert self._authorizer is not None, "it has counted the request"
            self._context.record.is_counted = True
            self._authorizer.give_back(self._context.record)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Yields the request's body as it arrives."""
        context = self._context
        request, head = context.request, context.head
        if head.body_length == 0:
            return
        expect_continue = head.expect_continue and request.version >= HTTP_1_1
        source = CallerBody(request, self._times, expect_continue=expect_continue)
        while piece := await source.readany():
            context.record.received_bytes += len(piece)
            yield piece

    async def _receive(self, file: BodyFile, fingerprint: Fingerprint | None) -> Content:
        """Stores the request's body. Raises JobsStorageFull."""
        jobs = self._jobs
        try:
            async for piece in self._pieces():
                await jobs.check_room(len(piece))
                self._counted_bytes += len(piece)
                jobs.incoming_bytes += len(piece)
                if fingerprint is not None:
                    fingerprint.add(piece)
                file.write(piece)
                jobs.unwritten_bytes += file.memory_bytes - self._memory_bytes
                self._memory_bytes = file.memory_bytes
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):  # the caller's fault, not the disk's
                raise
            raise jobs.unusable(store_fault(error)) from None
        return file.close()

    def _uncount(self) -> None:
        """Notes that the body is stored, and part of the tally, or is dropped."""
        self._jobs.incoming_bytes -= self._counted_bytes
        self._jobs.unwritten_bytes -= self._memory_bytes
        self._counted_bytes = self._memory_bytes = 0

    async def _count_pages(self, body: Content, file: BodyFile) -> float:
        """Returns the request's pages, or else the mean cost of its scope."""
        context = self._context
        assert context.page_count is not None
        if body.data is not None:
            return await context.page_count.count_whole(body.data, context.cost)
        with StoredBody(file.path, body.length) as stored:
            stored.open()
            context.page_count.follow(stored)
            if stored.on_whole is not None:
                stored.on_whole()
            await context.page_count.finish()
        return context.record.pages or context.cost

    async def _store(self, job: NewJob, file: BodyFile) -> JobView:
        """Stores the job, and begins to run it if its turn has come. Raises a ProxyError."""
        jobs, work, runner = self._jobs, job.work, self._jobs.runner
        owner = None
        try:
            if job.body.data is None:
                await jobs.files.sync(file.path)
            owner = jobs.directory.runner if runner.reserve(work.lane) else None
            submitted = await jobs.writer.run(
                lambda database: database.submit(job, owner, jobs.policy.max_unfinished)
            )
        except (NoRoom, StoreFault) as error:
            remove(file.path)
            if isinstance(error, NoRoom):
                raise too_many() from None
            raise jobs.unusable(error) from None
        finally:
            self._uncount()
            if owner is not None:
                runner.release(work.lane)
        if isinstance(submitted, KnownKey):
            remove(file.path)
            return _same(submitted, job.fingerprint)
        jobs.note_stored(work, is_claimed=owner is not None)
        return submitted

    async def _respond(self, view: JobView) -> None:
        context, jobs = self._context, self._jobs
        request, record, response = context.request, context.record, context.response
        limit_s = wait_s(context.head.prefer)
        if view.state in UNFINISHED and limit_s:
            with suppress(*_UNREADABLE):
                view = await self._wait(view, limit_s)
        keep_alive = request.keep_alive and request.body.is_complete and not jobs.is_draining
        if view.state not in UNFINISHED and view.status is not None:
            result = None
            with suppress(*_UNREADABLE):
                result = await jobs.read(lambda database: database.result(view.id))
            if result is not None:
                record.status = result.status
                file = jobs.directory.response_body(view.id).path
                await send_result(result, file, request, response, keep_alive=keep_alive)
                return
        applied = "respond-async" if limit_s is None else f"respond-async, wait={limit_s}"
        fields = {"Location": PREFIX + view.id, "Preference-Applied": applied}
        record.status = 202
        response.keep_alive = keep_alive
        own = state_response(202, view, jobs.expected_s(view), record.request_id, fields)
        response.sent_bytes = own.send(request, keep_alive=keep_alive)

    async def _wait(self, view: JobView, limit_s: float) -> JobView:
        """Waits for the job's end, for at most `limit_s`, and not while the proxy drains."""
        jobs, loop = self._jobs, asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        look_s = 0.0  # it may have ended since it was stored
        with jobs.watch(view.id) as ended:
            while True:
                left_s = max(0.0, deadline_s - loop.time())
                await wait_at_most(ended, left_s if jobs.runner.has(view.id) else min(left_s, look_s))
                look_s = max(_LOOK_S, jobs.watched / _MOST_LOOKS_PER_S)
                latest = await jobs.read(lambda database: database.view(view.id))
                if latest is None or latest.state not in UNFINISHED:
                    return latest or view
                if loop.time() >= deadline_s or jobs.is_draining:
                    return latest
                ended.clear()


def _same(known: KnownKey, fingerprint: bytes) -> JobView:
    """Returns the job that has the idempotency key. Raises IdempotencyKeyReused if it has another payload."""
    if known.fingerprint != fingerprint:
        message = "The Idempotency-Key was used for a request with another method, target or body."
        raise IdempotencyKeyReused(message, job=PREFIX + known.view.id)
    return known.view


def _urgency(context: RequestContext) -> int:
    return urgency(context.head.priority) if context.head.priority else BACKGROUND


def _stored_fields(fields: bytes, length: int | None) -> bytes:
    """Returns the forwarded fields without Expect, and with the length of a chunked body, if it is given."""
    lines = [line for line in fields.splitlines(keepends=True) if not line.lower().startswith(_EXPECT)]
    if length is not None:
        lines.append(b"Content-Length: %d\r\n" % length)
    return b"".join(lines)
