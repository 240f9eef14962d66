"""Runs the queued jobs of one environment: claims a window of them, sends them, and records how they end.

One task for each claimed job. It ends with the job, or when the runner drains:

    WAITING  has a ticket at the gate, or pauses before it asks for another one
      the gate grants, the store has recorded it -> SENDING
      the job was cancelled                      -> ended
      drain                                      -> ended; the job is queued without an owner
    SENDING  the request is on its way
      the upstream's response is stored          -> ended: DONE
      the judge decides to send it again         -> WAITING
      no connection could be made                -> WAITING, after a pause
      an error after the first byte              -> ended: UNKNOWN
      the drain's time is over                   -> ended: UNKNOWN
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from nanonets_proxy.core.http.methods import SAFE_METHODS
from nanonets_proxy.core.jobs.lifecycle import TARGETS, JobEvent
from nanonets_proxy.core.jobs.window import JobLane, Window
from nanonets_proxy.errors import InternalError, LargerThanLimit, ProxyError, ShuttingDown
from nanonets_proxy.jobs.directory import JobDirectory, remove
from nanonets_proxy.jobs.file_sync import FileSync
from nanonets_proxy.jobs.records import INLINE_BYTES, Result, Work
from nanonets_proxy.jobs.responses import result_of
from nanonets_proxy.jobs.sending import NOT_SENT, JobExchange, JobGone, JobResponse, job_context
from nanonets_proxy.jobs.store_thread import StoreFault
from nanonets_proxy.jobs.writer import StoreWriter
from nanonets_proxy.request.coalescing.members import Writes
from nanonets_proxy.request.context import RequestContext, Services
from nanonets_proxy.request.forward import Forwarder
from nanonets_proxy.request.policy import HandlerPolicy
from nanonets_proxy.telemetry.log import event_writer

_MAX_WAIT_S: Final = 365 * 86400.0  # a job waits for as long as it takes
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
_RETRY_STORE_S: Final = 1.0
_REMOVED: Final = "The stored response was removed."


class JobServices:
    """The services that send the jobs of an environment. Others follow when the settings change."""

    def __init__(self, policy: HandlerPolicy, services: Services) -> None:
        own = replace(policy, max_wait_s=_MAX_WAIT_S)
        self.forwarder = Forwarder(own, services, asyncio.get_running_loop())
        self.observers = services.observers
        self.writes = Writes(services.coalescing_groups)


@dataclass(frozen=True, slots=True)
class _End:
    """How a job ended."""

    event: JobEvent
    reason: str
    result: Result | None
    context: RequestContext | None


class JobRunner:
    """The jobs that this process has claimed. `on_end` is called with the id of each job that has ended."""

    def __init__(
        self,
        directory: JobDirectory,
        writer: StoreWriter,
        files: FileSync,
        window: Window,
        on_end: Callable[[str], None],
        on_fault: Callable[[str], None],
        log_fields: Mapping[str, str],
    ) -> None:
        self._directory, self._writer, self._files = directory, writer, files
        self._window, self._log = window, structlog.get_logger(**log_fields)
        self._on_end, self._on_fault = on_end, on_fault
        self._log_started = event_writer("job_started", **log_fields)
        self._log_ended = event_writer("job_ended", **log_fields)
        self._services: JobServices | None = None
        self._running: dict[str, tuple[asyncio.Task[None], JobExchange]] = {}
        self._held: Counter[JobLane] = Counter()  # jobs that run, and reserved room
        self._backlog: set[JobLane] = set()  # lanes with queued jobs that nobody has claimed
        self._claiming = asyncio.Lock()
        self.is_draining = False
        self.wanted = asyncio.Event()
        """Set when more jobs may be claimed."""

    def use(self, services: JobServices) -> None:
        """Sends the jobs that begin from now on with these services."""
        self._services = services

    def has(self, job_id: str) -> bool:
        """Returns whether this process has claimed the job."""
        return job_id in self._running

    def reserve(self, lane: JobLane) -> bool:
        """Takes room for a new job of the lane, if there is some and its turn has come. `release` must follow."""
        if self.is_draining or self._claiming.locked() or lane in self._backlog or not self._has_room(lane):
            return False
        self._held[lane] += 1
        return True

    def _has_room(self, lane: JobLane) -> bool:
        lanes = len(self._held) + (lane not in self._held)
        return self._window.room(self._held.get(lane, 0), self._held.total(), lanes) > 0

    def note_unclaimed(self, lane: JobLane) -> None:
        """Notes a stored job that waits in the store."""
        self._backlog.add(lane)
        if self._has_room(lane):  # since the job was given to the store
            self.wanted.set()

    async def claim(self) -> None:
        """Claims as many queued jobs as there is room for, and runs them. Raises StoreFault."""
        self.wanted.clear()
        if self.is_draining:
            return
        held, total = dict(self._held), self._held.total()

        def most(lane: JobLane, lanes: int) -> int:
            nonlocal total
            count = self._window.room(held.get(lane, 0), total, lanes)
            total += count
            return count

        owner = self._directory.runner
        async with self._claiming:  # the same room must not be given to a submission
            claimed, self._backlog = await self._writer.run(lambda database: database.claim(owner, most))
        for work in claimed:
            self.run(work)

    def run(self, work: Work) -> None:
        """Runs a job that this process has claimed."""
        if self.is_draining:  # since the claim: the drain gives it back
            return
        self._held[work.lane] += 1
        exchange = JobExchange(work, self._writer, self._directory.runner, self._log_start)
        task = asyncio.get_running_loop().create_task(self._run(work, exchange))
        self._running[work.id] = task, exchange
        task.add_done_callback(lambda _: self._forget(work))

    def _forget(self, work: Work) -> None:
        del self._running[work.id]
        self.release(work.lane)

    def release(self, lane: JobLane) -> None:
        """Frees the room that `reserve` or `run` has taken."""
        if (left := self._held.pop(lane) - 1) > 0:
            self._held[lane] = left
        if lane in self._backlog or any(map(self._has_room, self._backlog)):
            self.wanted.set()

    def withdraw(self, job_id: str) -> None:
        """Ends the task of a job that was cancelled in the store."""
        if (running := self._running.get(job_id)) is not None:
            running[0].cancel()

    # --- one job ------------------------------------------------------------------------------------------

    async def _run(self, work: Work, exchange: JobExchange) -> None:
        try:
            end = await self._send_until_it_ends(work, exchange)
        except (JobGone, ShuttingDown):
            return
        except asyncio.CancelledError:
            if not exchange.is_sending:
                exchange.send_again()  # the store may have recorded the sending meanwhile
                raise
            end = _End(JobEvent.LOSE, "The proxy stopped before the response came.", None, exchange.context)
        except Exception:  # noqa: BLE001 - a defect must not leave the job in doubt
            self._log.exception("job_broken", id=work.id)
            event = JobEvent.LOSE if exchange.is_sending else JobEvent.REJECT
            error = InternalError("The proxy failed.")
            end = _End(event, error.message, result_of(error, work.request_id), exchange.context)
        await self._record(work, exchange, end)

    async def _send_until_it_ends(self, work: Work, exchange: JobExchange) -> _End:
        """Returns how the job ended. Raises JobGone, ShuttingDown, or CancelledError."""
        pause_s, logged_code = _FIRST_PAUSE_S, ""
        while True:
            try:
                return await self._send_once(work, exchange)
            except ShuttingDown:
                raise
            except StoreFault as fault:
                self._on_fault(str(fault))
                await asyncio.sleep(_RETRY_STORE_S)
            except ProxyError as error:
                if exchange.is_sending and not isinstance(error, NOT_SENT):
                    return _End(JobEvent.LOSE, error.message, result_of(error, work.request_id), exchange.context)
                if isinstance(error, LargerThanLimit | InternalError):
                    return _End(JobEvent.REJECT, error.message, result_of(error, work.request_id), exchange.context)
                exchange.send_again()
                wait_s = max(pause_s, min(error.retry_after_s or 0.0, _LONGEST_PAUSE_S))
                if error.code != logged_code:  # the same obstacle may last for hours
                    self._log.info("job_returned", id=work.id, code=error.code, error=error.message, pause_s=wait_s)
                    logged_code = error.code
                await asyncio.sleep(wait_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _send_once(self, work: Work, exchange: JobExchange) -> _End:
        """Waits for a permit, and sends the job. Raises the ProxyError that a caller would get, or StoreFault."""
        services = self._services
        assert services is not None
        with job_context(work, exchange, self._directory) as context:
            response = context.response
            assert isinstance(response, JobResponse)
            if context.method not in SAFE_METHODS:
                context.sharing = services.writes
            try:
                await services.forwarder.forward(context)
                body = response.body.close()
            except BaseException:
                response.body.discard()
                raise
            return _End(JobEvent.RESPOND, "", Result(context.record.status, response.head, body), context)

    async def _record(self, work: Work, exchange: JobExchange, end: _End) -> None:
        """Records the end of a job, as often as it takes."""
        result = end.result
        is_filed = result is not None and result.body.data is None
        file = self._directory.response_body(work.id).path if is_filed else None
        while True:
            try:
                if file is not None:
                    await self._files.sync(file)
                is_recorded = await exchange.end(end.event, end.reason, result)
                break
            except StoreFault as fault:
                if file is not None and not file.exists():
                    end, result, file = replace(end, event=JobEvent.LOSE, reason=_REMOVED, result=None), None, None
                    continue
                # Until it is recorded, the job counts as being sent.
                self._on_fault(str(fault))
                await asyncio.sleep(_RETRY_STORE_S)
        if not is_recorded:  # another process has found it in doubt
            self._directory.remove_files(work.id)
            return
        if work.body_bytes > INLINE_BYTES:
            remove(self._directory.request_body(work.id).path)
        self._log_end(work, end)
        self._on_end(work.id)

    def _log_start(self, work: Work) -> None:
        if self._log_started is not None:
            self._log_started({"id": work.id, "request_id": work.request_id})

    def _log_end(self, work: Work, end: _End) -> None:
        facts: dict[str, Any] = {"reason": end.reason} if end.reason else {}
        if end.context is not None:
            record = end.context.record
            record.sent_bytes = end.context.response.sent_bytes
            record.status = 0 if end.result is None else end.result.status
            facts |= {
                "attempts": record.attempts,
                "upstream_s": record.upstream_s and round(record.upstream_s, 4),
                "key": record.key,
            }
            if record.retried_after:
                facts["retried_after"] = record.retried_after
            if self._services is not None and record.attempts:
                record.finish(None, self._services.observers)
        if self._log_ended is None:
            return
        own = {
            "id": work.id,
            "state": str(TARGETS[end.event]),
            "status": None if end.result is None else end.result.status,
            "caller": work.lane.caller,
            "scope": work.lane.scope,
            "total_s": round(max(0.0, time.time() - work.created_s), 3),
            "request_id": work.request_id,
        }
        self._log_ended(own | facts)

    # --- the end ------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Returns the queued jobs to the store, and lets the others end within a time."""
        self.is_draining = True
        running = list(self._running.values())
        for task, exchange in running:
            if not exchange.is_sending:
                task.cancel()
        if not running:
            return
        _, late = await asyncio.wait([task for task, _ in running], timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_RETRY_STORE_S)
