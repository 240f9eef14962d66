"""Faults of the disk and of the store leave no job stuck."""

import asyncio
import os
import sqlite3
import threading
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.directory import BodyFile
from nanonets_proxy.jobs.file_sync import MOST_AT_ONCE
from nanonets_proxy.jobs.store_thread import StoreFault
from support.eventually import WAIT_S, until
from support.job_scene import ASYNC, accepted, files, job_scene, new_job, paused_writer, stored
from support.log_capture import captured_log
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding

LARGE = b"r" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


async def test_a_file_that_cannot_be_removed_does_not_stop_the_jobs(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, jobs_keep="1ms") as scene,
    ):
        first = await scene.submit()
        await until(lambda: stored(folder) == ["done"])
        # A directory cannot be unlinked, like a file on a disk that became read-only.
        scene.jobs.directory.response_body(first.rpartition("/")[2]).path.mkdir()
        async with asyncio.timeout(WAIT_S):
            while stored(folder):
                await scene.jobs._expire()
        await scene.submit()
        await until(lambda: stored(folder) == ["done"])


def test_a_body_that_is_dropped_leaves_no_file_also_when_it_was_whole(tmp_path: Path) -> None:
    body = BodyFile(tmp_path, "body")
    body.write(LARGE)
    assert body.close().data is None
    body.discard()
    assert list(tmp_path.iterdir()) == []


async def test_a_runner_whose_lock_cannot_be_read_is_looked_at_again_later(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        other = "0" * 16
        lock = folder / f"{other}.lock"
        lock.symlink_to(lock)  # opening it fails, as with too many open files
        await scene.jobs.writer.run(lambda database: database.submit(new_job(1, None, b"x"), other, 10))
        scene.jobs._next_recovery_s = 0.0
        scene.jobs.runner.wanted.set()
        await until(lambda: any(alert["event"] == "jobs_stopped" for alert in scene.proxy.proxy.alerts.to_json()))
        lock.unlink()
        scene.jobs._next_recovery_s = 0.0
        scene.jobs.runner.wanted.set()
        await until(lambda: stored(folder) == ["done"])


async def test_a_defect_in_one_operation_fails_this_operation_alone(folder: Path) -> None:
    def broken(_: JobDatabase) -> None:
        raise OverflowError("a number does not fit")

    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        with pytest.raises(StoreFault, match="a number does not fit"):
            await scene.jobs.writer.run(broken)
        await scene.until(await scene.submit(), "done")


async def test_a_stored_response_that_was_removed_ends_its_job_as_unknown(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        head, _, body = ok(LARGE).partition(b"\r\n\r\n")
        await exchange.send(head + b"\r\n\r\n" + body[:90_000])
        await until(lambda: files(folder, ".response") != [])
        files(folder, ".response")[0].unlink()
        await exchange.send(body[90_000:])
        job = await scene.until(location, "unknown")
        assert "response" in job["reason"]
        assert len(upstream.requests) == 1


async def test_a_response_that_was_removed_since_the_caller_asked_is_not_found(folder: Path) -> None:
    async with ScriptedUpstream(responding(ok(LARGE))) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await scene.until(location, "done")
        scene.jobs.directory.remove_files(location.rpartition("/")[2])  # as when `jobs_keep` ends at this instant
        response = await scene.result(location)
        assert (response.status, response.json()["code"]) == (404, "not_found")


async def test_a_database_that_was_removed_accepts_no_jobs(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.until(await scene.submit(), "done")
        database = (folder / "jobs.db").rename(folder / "aside")
        response = await scene.caller.post(b"/x", b"", ASYNC)
        assert (response.status, response.json()["code"]) == (503, "jobs_unavailable")
        (alert,) = [alert for alert in scene.proxy.proxy.alerts.to_json() if alert["event"] == "jobs_stopped"]
        assert alert["reason"] == "cannot be used: no such file or directory"
        (folder / "jobs.db").touch()  # another one does not count
        assert (await scene.caller.post(b"/x", b"", ASYNC)).status == 503
        database.rename(folder / "jobs.db")
        await scene.until(await scene.submit(), "done")


async def test_the_log_counts_the_bytes_that_a_reader_got_before_it_hung_up(folder: Path) -> None:
    size = 20_000_000  # more than the buffers of both sockets hold
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(ok(b"r" * size))) as upstream,
            job_scene(upstream.origin, folder) as scene,
        ):
            location = await scene.submit()
            await scene.until(location, "done")
            async with await scene.proxy.caller() as reader:
                await reader.send(request(b"GET", f"{location}/result".encode()))
                await reader.head()
                reader.close()
    (sent,) = [event for event in log.events("request") if event["path"].endswith("/result")]
    assert sent["code"] == "caller_gone"
    assert 0 < sent["sent_bytes"] < size


async def test_polls_work_while_another_process_holds_the_lock_of_the_database(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await scene.until(location, "done")
        with closing(sqlite3.connect(folder / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert (await scene.job(location))["state"] == "done"
            assert (await scene.result(location)).body == b"ok"
            other.execute("ROLLBACK")


async def test_polls_wait_for_no_writing_to_the_disk(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await scene.until(location, "done")
        with paused_writer(scene.jobs.writer) as pause:
            await until(pause.begun.is_set)
            assert (await scene.job(location))["state"] == "done"
            assert (await scene.result(location)).body == b"ok"


async def test_a_large_body_on_its_way_to_the_disk_holds_up_no_other_job(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        slow = folder / "slow"
        os.mkfifo(slow)  # opening it waits for a writer, like a slow disk
        syncing = asyncio.create_task(scene.jobs.files.sync(slow))
        await scene.until(await scene.submit(b"/x", LARGE), "done")
        assert not syncing.done()
        os.close(os.open(slow, os.O_WRONLY))
        with pytest.raises(StoreFault, match="cannot be used: invalid argument"):  # a pipe is on no disk
            await syncing


@pytest.mark.parametrize("end", ["", "done"])
async def test_a_stored_job_gets_its_202_although_the_store_cannot_be_read(folder: Path, end: str) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.jobs._reader.run(lambda database: database.close())
        await scene.caller.send(request(b"POST", b"/x", b"Prefer: respond-async, wait=1", body=b"body"))
        exchange = await upstream.next_request()
        if end:
            await exchange.respond(OK)
        location = accepted(await scene.caller.response())
        assert (await scene.caller.get(location.encode())).status == 503


async def test_a_body_on_its_way_to_the_disk_counts_in_the_disk_space_of_all_jobs(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, jobs_total="150kB") as scene,
        await scene.proxy.caller() as second,
    ):
        async with AsyncExitStack() as slow_disk:
            for _ in range(MOST_AT_ONCE):
                await slow_disk.enter_async_context(scene.jobs.files._places)
            await scene.caller.send(request(b"POST", b"/x", ASYNC, body=LARGE))
            await until(lambda: [file.stat().st_size for file in files(folder, ".request")] == [len(LARGE)])
            response = await second.post(b"/x", LARGE, ASYNC)
            assert (response.status, response.json()["code"]) == (507, "jobs_storage_full")
        await scene.until(accepted(await scene.caller.response()), "done")
        assert scene.jobs.incoming_bytes == 0


async def test_a_lack_of_threads_fails_a_submission_and_delays_the_end_of_a_job(folder: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder) as scene,
        await scene.proxy.caller() as second,
    ):
        location = await scene.submit()
        exchange = await upstream.next_request()
        usual_bytes = threading.stack_size(1 << 50)  # more than an address space has
        try:
            await exchange.respond(ok(LARGE))
            response = await second.post(b"/x", LARGE, ASYNC)
            assert (response.status, response.json()["code"]) == (503, "jobs_unavailable")
            await until(lambda: len(scene.proxy.proxy.alerts.to_json()) > 0)
            assert (await scene.job(location))["state"] == "sending"
            assert files(folder, ".request") == []
        finally:
            threading.stack_size(usual_bytes)
        await scene.until(location, "done")


async def test_a_stored_body_that_cannot_be_opened_for_a_while_fails_no_job(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream:
        async with job_scene(upstream.origin, folder) as scene:
            await scene.jobs.drain(1.0)
            location = await scene.submit(b"/x", LARGE)
        body, kept = files(folder, ".request")[0], folder / "kept"
        body.rename(kept)
        body.symlink_to(body)  # opening it fails, as with too many open files
        async with job_scene(upstream.origin, folder) as scene:
            await until(
                lambda: any(alert["event"] == "jobs_stopped" for alert in scene.proxy.proxy.alerts.to_json())
            )
            kept.rename(body)
            await scene.until(location, "done")
            assert upstream.requests[0].body == LARGE


async def test_a_key_that_is_repeated_during_a_drain_finds_its_job(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream:
        async with job_scene(upstream.origin, folder) as scene:
            lines = (ASYNC, b"Idempotency-Key: k")
            location = await scene.submit(b"/x", b"body", *lines)
            await until(lambda: stored(folder) == ["done"])
            await scene.jobs.drain(1.0)
            async with await scene.proxy.caller() as caller:
                assert (await caller.post(b"/x", b"body", *lines)).status == 200
            async with await scene.proxy.caller() as caller:
                new = (await caller.post(b"/y", b"body", ASYNC)).value(b"location").decode()
        assert len(upstream.requests) == 1
        assert stored(folder) == ["done", "queued"]
        async with job_scene(upstream.origin, folder) as scene:
            await scene.until(new, "done")
            assert (await scene.job(location))["state"] == "done"
