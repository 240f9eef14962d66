"""A proxy with jobs, a caller, and what is on the disk."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.jobs.jobs import Jobs
from nanonets_proxy.jobs.records import Content, NewJob, Work
from nanonets_proxy.jobs.writer import StoreWriter
from support.eventually import WAIT_S
from support.proxy_harness import RunningProxy, program, running_proxy
from support.raw_caller import RawCaller, RawResponse

ASYNC = b"Prefer: respond-async"


@dataclass(frozen=True)
class JobScene:
    """One running proxy with jobs in `folder`, and one caller."""

    proxy: RunningProxy
    caller: RawCaller
    folder: Path

    @property
    def jobs(self) -> Jobs:
        jobs = self.proxy.proxy._jobs._jobs
        assert jobs is not None
        return jobs

    async def submit(self, target: bytes = b"/x", body: bytes = b"body", *lines: bytes) -> str:
        """Submits a POST, and returns the job's location."""
        return accepted(await self.caller.post(target, body, *(lines or (ASYNC,))))

    async def job(self, location: str) -> Any:
        """Returns the state of a job."""
        response = await self.caller.get(location.encode())
        assert response.status == 200, response
        return response.json()

    async def result(self, location: str) -> RawResponse:
        return await self.caller.get(location.encode() + b"/result")

    async def until(self, location: str, state: str) -> Any:
        """Waits until a job is in a state, and returns the job."""
        async with asyncio.timeout(WAIT_S):
            while (job := await self.job(location))["state"] != state:  # noqa: ASYNC110 - callers poll
                await asyncio.sleep(0.005)
        return job


def accepted(response: RawResponse) -> str:
    """Returns the location of a job that was accepted."""
    assert response.status == 202, response
    location = response.value(b"location").decode()
    assert location == response.json()["location"]
    return location


@asynccontextmanager
async def second_scene(origin: Origin, folder: Path) -> AsyncIterator[JobScene]:
    """Runs another proxy with the same directory, while a first one runs."""
    other = program(origin, jobs=str(folder))
    other.open()
    await other.start()
    try:
        running = RunningProxy(other)
        async with await running.caller() as caller:
            yield JobScene(running, caller, folder)
    finally:
        await other.stop(1.0)


@asynccontextmanager
async def job_scene(origin: Origin, folder: Path, **overrides: Any) -> AsyncIterator[JobScene]:
    async with (
        running_proxy(origin, jobs=str(folder), **overrides) as proxy,
        await proxy.caller() as caller,
    ):
        yield JobScene(proxy, caller, folder)


@dataclass(frozen=True)
class WriterPause:
    """An operation that keeps the writer's thread busy until `over` is set."""

    begun: threading.Event
    over: threading.Event


@contextmanager
def paused_writer(writer: StoreWriter) -> Iterator[WriterPause]:
    """Queues a pause of the writer's thread. It ends with the context at the latest."""
    pause = WriterPause(threading.Event(), threading.Event())
    writer.run(lambda _: (pause.begun.set(), pause.over.wait()))
    try:
        yield pause
    finally:
        pause.over.set()


def stored(folder: Path, column: str = "state") -> list[Any]:
    """Returns a column of all jobs, as another process reads it from the disk."""
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        return [value for (value,) in connection.execute(f"SELECT {column} FROM job ORDER BY number")]


def files(folder: Path, suffix: str) -> list[Path]:
    """Returns the files with this end of their names."""
    return sorted(folder.glob(f"*{suffix}"))


def modes(folder: Path) -> set[int]:
    """Returns the permissions of the files in a directory."""
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def all_bytes(folder: Path) -> bytes:
    """Returns all that is in the directory of the jobs."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def new_job(number: int, key: str | None, payload: bytes) -> NewJob:
    """Returns a job as a submission stores it."""
    lane = JobLane("caller", "account", 7)
    work = Work(
        f"job-{number}", lane, 1, None, "request", "POST", "/x", b"localhost", b"", len(payload), time.time()
    )
    return NewJob(work, key, payload, Content(len(payload), payload))
