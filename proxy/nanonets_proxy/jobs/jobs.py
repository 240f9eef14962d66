"""The durable jobs of one environment: stores requests and runs them. docs/jobs.md explains the states.

Call `use` and `start`, then `drain` and `stop`. `endpoint.py` responds to callers.
"""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import structlog

from nanonets_proxy.admission.sleep_clock import steady_s
from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.core.jobs.aging import Aging
from nanonets_proxy.core.jobs.lifecycle import JobState
from nanonets_proxy.errors import JobsStorageFull, JobsUnavailable, ProxyError
from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.directory import JobDirectory
from nanonets_proxy.jobs.file_sync import FileSync
from nanonets_proxy.jobs.policy import LEFT_FREE_BYTES, JobsPolicy, JobsUnusable
from nanonets_proxy.jobs.records import JobView, Tally, Work, too_many
from nanonets_proxy.jobs.runner import JobRunner, JobServices
from nanonets_proxy.jobs.store_thread import Operation, StoreFault, StoreReader, StoreThread, store_fault
from nanonets_proxy.jobs.writer import StoreWriter
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.database_fault import DatabaseFault, fault_of
from nanonets_proxy.telemetry.log import event_writer

T = TypeVar("T")

_CLAIM_S: Final = 1.0  # another process may have stored a job, or given it back
_MIN_CLAIM_S: Final = 0.02
_RECOVER_S: Final = 5.0
_EXPIRE_S: Final = 30.0
_SWEEP_S: Final = 3600.0
# A body that arrives slowly changes its file's time with each piece.
_ABANDONED_S: Final = 3600.0
_EXPIRED_AT_ONCE: Final = 100
_RETRY_S: Final = 5.0
_ADVICE: Final = "make room on the disk of the setting jobs, and make its directory writable"
_LOST: Final = "The proxy that sent it ended before the response came."


class Jobs:
    """The store and the runner of one environment's jobs."""

    def __init__(
        self,
        policy: JobsPolicy,
        alerts: Alerts,
        forecast_s: Callable[[str, float], float],
        upstream: str,
        log_fields: Mapping[str, str],
    ) -> None:
        """`forecast_s` predicts the seconds until a scope has sent a number of further units; nan: unknown."""
        self.policy = policy
        self.directory = JobDirectory(policy.directory)
        self.tally = Tally()
        """As of the latest transaction of this process: a caller may have seen a later state."""
        self.incoming_bytes = 0
        """Bodies that are being received, or are not stored yet."""
        self.unwritten_bytes = 0
        """The part of them that is in memory, and not on the disk."""
        self.writer = StoreWriter(self._note_tally)
        self._reader = StoreReader()
        self.files = FileSync()
        self.runner = JobRunner(
            self.directory, self.writer, self.files, policy.window, self.wake, self.report_fault, log_fields
        )
        self._upstream = upstream
        self._alerts = alerts
        self._forecast_s = forecast_s
        self._log = structlog.get_logger(**log_fields)
        self._log_queued = event_writer("job_queued", **log_fields)
        self._watched: dict[str, asyncio.Event] = {}
        self._watchers: dict[str, int] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._maintenance: asyncio.Task[None] | None = None
        self._ended, self._bodies = Aging(policy.keep_s), Aging(_ABANDONED_S)
        self._next_recovery_s = self._next_expiry_s = self._next_sweep_s = -math.inf

    @property
    def is_draining(self) -> bool:
        return self.runner.is_draining

    @property
    def watched(self) -> int:
        return len(self._watched)

    def use(self, services: JobServices) -> None:
        """Applies other settings to the jobs that begin from now on."""
        self.runner.use(services)

    # --- start and end ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the store, and begins to run its jobs. Raises JobsUnusable."""
        self.directory.open()
        try:
            database = JobDatabase(self.directory.database, self._upstream)
            try:
                for_reading = JobDatabase(self.directory.database, self._upstream, read_only=True)
            except BaseException:
                database.close()
                raise
        except (sqlite3.Error, OSError, DatabaseFault) as error:
            self.directory.close()
            fault = error if isinstance(error, DatabaseFault) else fault_of(error)
            raise JobsUnusable(f"jobs: {self.directory.database} {fault}") from None
        self.writer.start(database)
        self._reader.start(for_reading)
        self._maintenance = asyncio.get_running_loop().create_task(self._maintain())

    async def drain(self, timeout_s: float) -> None:
        """Lets the jobs in SENDING end within a time. The queued ones stay queued, for the next process."""
        if self._maintenance is None:
            return
        self.runner.is_draining = True
        for event in self._watched.values():
            event.set()
        await self.runner.drain(timeout_s)
        with suppress(StoreFault):
            await self.writer.run(lambda database: database.release(self.directory.runner))

    async def stop(self) -> None:
        """Closes the store."""
        if self._maintenance is None:
            return
        self._maintenance.cancel()
        with suppress(asyncio.CancelledError):
            await self._maintenance
        if self._background:
            await asyncio.wait(self._background, timeout=1.0)
        self._reader.close()
        self.writer.close()
        self.directory.close()

    async def _maintain(self) -> None:
        while True:
            try:
                await self._maintain_once()
            except (StoreFault, OSError) as error:  # OSError: a file could not be locked or removed
                self.report_fault(str(error if isinstance(error, StoreFault) else store_fault(error)))
            await asyncio.sleep(_MIN_CLAIM_S)
            await wait_at_most(self.runner.wanted, _CLAIM_S)

    async def _maintain_once(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._next_recovery_s:
            self._next_recovery_s = now_s + _RECOVER_S
            await self._recover()
        await self.runner.claim()
        if now_s >= self._next_expiry_s:
            self._next_expiry_s = now_s + _EXPIRE_S
            await self._expire()
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + _SWEEP_S
            await self._sweep()

    async def _recover(self) -> None:
        """Takes over the queued jobs of runners that have ended. Those that they were sending are unknown."""
        own = self.directory.runner
        for owner in await self.writer.run(lambda database: database.owners()):
            if owner == own or not self.directory.has_ended(owner):
                continue
            queued, lost = await self.writer.run(
                lambda database, owner=owner: (database.release(owner), database.lose(owner, _LOST))  # type: ignore[misc]  # binds it now
            )
            self.directory.forget(owner)
            for job_id in lost:
                self.directory.remove_files(job_id)
                self._log.warning("job_lost", id=job_id, reason=_LOST)
                self.wake(job_id)
            self._log.info("jobs_recovered", queued=queued, unknown=len(lost))

    async def _expire(self) -> None:
        first_s, last_s = self._ended.kept(time.time(), steady_s())
        removed = await self.writer.run(lambda database: database.expire(first_s, last_s, _EXPIRED_AT_ONCE))
        for job_id in removed:
            self.directory.remove_files(job_id)
        if removed:
            self._log.info("jobs_expired", jobs=len(removed))
        if len(removed) == _EXPIRED_AT_ONCE:
            self._next_expiry_s = -math.inf

    async def _sweep(self) -> None:
        """Removes the bodies that a crash has left without a job."""
        first_s, _ = self._bodies.kept(time.time(), steady_s())
        abandoned = self.directory.abandoned(first_s)
        # The directory may be large, so the writer's thread reads it.
        for job_id in await self.writer.run(lambda database: database.without_job(abandoned)):
            self.directory.remove_files(job_id)

    # --- for submissions --------------------------------------------------------------------------------

    async def check_room(self, more_bytes: int) -> None:
        """Raises JobsFull or JobsStorageFull if a further job with a body of this size has no room."""
        if self._excess(self.tally, more_bytes) is not None:
            # A caller that has seen the end of a job may submit the next one before this process counts anew.
            tally = await self.read(lambda database: database.tally())
            if (error := self._excess(tally, more_bytes)) is not None:
                raise error
        try:
            free_bytes = self.directory.free_bytes()
        except OSError as error:
            raise self.unusable(store_fault(error)) from None
        if free_bytes - self.unwritten_bytes - more_bytes < LEFT_FREE_BYTES:
            raise self.unusable(StoreFault("has no room for further jobs on its disk", is_full=True))

    def _excess(self, tally: Tally, more_bytes: int) -> ProxyError | None:
        """Returns the error for a further job with a body of this size; None: `tally` leaves room for it."""
        if tally.unfinished >= self.policy.max_unfinished:
            return too_many()
        if tally.bytes + self.incoming_bytes + more_bytes > self.policy.max_bytes:
            message = "Jobs and their responses use the disk space that the setting jobs_total allows."
            return JobsStorageFull(message, used=tally.bytes, limit=self.policy.max_bytes)
        return None

    def report_fault(self, fault: str) -> None:
        """Reports that the store cannot be used; the sentence starts with the directory's name."""
        self._alerts.report("jobs_stopped", _ADVICE, path=str(self.policy.directory), reason=fault)

    def note_stored(self, work: Work, *, is_claimed: bool) -> None:
        """Logs a stored job, and runs it if this process has claimed it."""
        lane = work.lane
        if self._log_queued is not None:
            self._log_queued(
                {
                    "id": work.id,
                    "caller": lane.caller,
                    "scope": lane.scope,
                    "bytes": work.body_bytes,
                    "request_id": work.request_id,
                }
            )
        if is_claimed and not self.is_draining:
            self.runner.run(work)
        else:
            self.runner.note_unclaimed(lane)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Runs something to its end, whether or not its caller stays."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def read(self, operation: Operation[T]) -> T:
        """Runs an operation that changes nothing. Raises JobsUnavailable."""
        return await self._run(self._reader, operation)

    async def change(self, operation: Operation[T]) -> T:
        """Runs an operation that may change something. Raises JobsStorageFull or JobsUnavailable."""
        return await self._run(self.writer, operation)

    async def _run(self, thread: StoreThread, operation: Operation[T]) -> T:
        try:
            return await thread.run(operation)
        except StoreFault as fault:
            raise self.unusable(fault) from None

    def unusable(self, fault: StoreFault) -> ProxyError:
        """Reports that the store cannot be used, and returns the error for a caller."""
        self.report_fault(str(fault))
        if fault.is_full:
            return JobsStorageFull("The disk of the jobs is full.")
        return JobsUnavailable("The store of the jobs cannot be used now.", retry_after_s=_RETRY_S)

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set when the job ends, or the proxy drains."""
        event = self._watched.setdefault(job_id, asyncio.Event())
        self._watchers[job_id] = self._watchers.get(job_id, 0) + 1
        if self.is_draining:
            event.set()
        try:
            yield event
        finally:
            self._watchers[job_id] -= 1
            if not self._watchers[job_id]:
                del self._watchers[job_id], self._watched[job_id]

    def expected_s(self, view: JobView) -> float:
        """Returns the time until a job's response is expected; nan if that is unknown."""
        if view.state is not JobState.QUEUED:
            return math.nan
        return self._forecast_s(view.scope, view.ahead + 1)

    def wake(self, job_id: str) -> None:
        """Wakes the callers that wait for the end of a job."""
        if (event := self._watched.get(job_id)) is not None:
            event.set()

    def _note_tally(self, tally: Tally) -> None:
        self.tally = tally
