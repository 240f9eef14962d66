"""How jobs end, and what happens to them in a drain, a restart and beside a second process."""

import asyncio
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.policy import LEFT_FREE_BYTES, JobsUnusable
from support.eventually import WAIT_S, until
from support.job_scene import ASYNC, accepted, all_bytes, files, job_scene, modes, second_scene, stored
from support.log_capture import captured_log
from support.proxy_harness import KEY, program
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding

REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


async def test_a_refused_job_is_queued_again_until_the_limit_opens(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit(b"/x", b"document")
        await (await upstream.next_request()).respond(REFUSED)
        await until(lambda: stored(folder) == ["queued"])
        exchange = await upstream.next_request()
        assert stored(folder) == ["sending"]
        await exchange.respond(OK)
        assert exchange.body == b"document"
        await scene.until(location, "done")


async def test_the_event_of_a_job_that_was_sent_again_names_the_failure(folder: Path) -> None:
    with captured_log() as log, socket.socket() as kept_free:
        kept_free.bind(("127.0.0.1", 0))  # reserves the port; nobody listens there
        port = kept_free.getsockname()[1]
        async with job_scene(Origin("http", "127.0.0.1", port), folder, retries=10, retry_backoff="20ms") as scene:
            location = await scene.submit()
            retried = "nanonets_proxy_upstream_retries_total"
            await until(lambda: bool(scene.proxy.proxy.metrics.registry.get_sample_value(retried)))
            kept_free.close()
            async with ScriptedUpstream(responding(OK), port=port):
                await scene.until(location, "done")
    (event,) = log.events("job_ended")
    assert (event["status"], event["retried_after"]) == (200, "upstream_refused")


async def test_a_job_waits_for_longer_than_a_request_may(folder: Path) -> None:
    closed = REFUSED.replace(b"Retry-After: 1", b"Retry-After: 600")
    async with ScriptedUpstream(responding(closed)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await until(lambda: stored(folder) == ["queued"] and scene.proxy.in_flight == 0)
        job = await scene.job(location)
        assert job["state"] == "queued"
        assert (await scene.caller.get(b"/x")).status == 429  # a caller's request may wait for 10 s
        response = await scene.caller.post(b"/y", b"", ASYNC)
        assert response.status == 202


async def test_a_lost_response_leaves_the_job_unknown_and_it_is_never_sent_again(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        await exchange.read_body()
        exchange.reset()
        job = await scene.until(location, "unknown")
        assert job["status"] == 502
        response = await scene.result(location)
        assert (response.status, response.json()["code"]) == (502, "upstream_closed")
        assert response.values(b"proxy-status")
        assert len(upstream.requests) == 1


async def test_a_large_job_that_waits_keeps_no_file_open(folder: Path) -> None:
    def opened() -> int:
        targets = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # of the listing itself
                targets.append(descriptor.readlink())
        return sum(target.name.endswith(".request") for target in targets)

    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, pool_size=1) as scene:
        first = await scene.submit(b"/1", b"1" * 100_000)
        exchange = await upstream.next_request()
        second = await scene.submit(b"/2", b"2" * 100_000)
        await until(lambda: scene.proxy.waiting == 1)
        assert opened() == 1
        await exchange.respond(REFUSED)
        await until(lambda: stored(folder) == ["queued", "queued"])
        assert opened() == 0
        for _ in (first, second):
            exchange = await upstream.next_request()
            await exchange.respond(OK)
        assert {len(exchange.body) for exchange in upstream.requests} == {100_000}
        await scene.until(first, "done")
        await scene.until(second, "done")


async def test_a_response_that_breaks_off_leaves_the_job_unknown(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        await exchange.read_body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        exchange.close()
        await scene.until(location, "unknown")
        assert (await scene.result(location)).status == 502
        assert not files(folder, ".response")


async def test_a_job_stays_queued_while_the_upstream_cannot_be_reached(folder: Path) -> None:
    async with ScriptedUpstream() as upstream:
        origin = upstream.origin
    async with job_scene(origin, folder) as scene:
        location = await scene.submit()
        await until(lambda: stored(folder) == ["queued"] and stored(folder, "owner") != [None])
        async with ScriptedUpstream(responding(OK), port=origin.port):
            await scene.until(location, "done")


async def test_an_error_of_the_upstream_is_a_response_like_any_other(folder: Path) -> None:
    broken = ok(b"broken", status=b"500 Internal Server Error")
    async with ScriptedUpstream(responding(broken)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        assert (await scene.until(location, "done"))["status"] == 500
        assert (await scene.result(location)).body == b"broken"


async def test_a_queued_job_can_be_cancelled_and_a_job_in_sending_cannot(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, pool_size=1) as scene:
        sending, queued = await scene.submit(b"/1"), await scene.submit(b"/2", b"d" * 100_000)
        exchange = await upstream.next_request()
        await scene.caller.send(request(b"DELETE", queued.encode()))
        response = await scene.caller.response()
        assert (response.status, response.json()["state"]) == (200, "cancelled")
        await until(lambda: scene.proxy.waiting == 0)
        assert not files(folder, ".request")
        await scene.caller.send(request(b"DELETE", sending.encode()))
        response = await scene.caller.response()
        assert (response.status, response.json()["code"]) == (409, "job_not_cancellable")
        await exchange.respond(OK)
        await scene.until(sending, "done")
        assert (await scene.result(queued)).status == 409
        assert len(upstream.requests) == 1


async def test_a_drain_leaves_queued_jobs_and_lets_the_others_end_and_the_next_process_goes_on(
    folder: Path,
) -> None:
    async with ScriptedUpstream() as upstream:
        async with job_scene(upstream.origin, folder, pool_size=1) as scene:
            first, second = await scene.submit(b"/1"), await scene.submit(b"/2")
            exchange = await upstream.next_request()
            stopping = scene.proxy.stop()
            await until(lambda: scene.jobs.is_draining)
            await exchange.respond(OK)
            await stopping
        assert stored(folder) == ["done", "queued"]
        assert stored(folder, "owner") == [None, None]
        assert not files(folder, ".lock")
        async with job_scene(upstream.origin, folder) as scene:
            await (await upstream.next_request()).respond(ok(b"second"))
            await scene.until(second, "done")
            assert (await scene.result(second)).body == b"second"
            assert (await scene.result(first)).status == 200


async def test_a_job_that_the_drain_cuts_off_is_unknown(folder: Path) -> None:
    async with ScriptedUpstream() as upstream:
        async with job_scene(upstream.origin, folder) as scene:
            await scene.submit()
            await upstream.next_request()
            await scene.proxy.stop(0.05)
        assert stored(folder) == ["unknown"]
        assert stored(folder, "reason") == ["The proxy stopped before the response came."]


async def test_a_caller_that_waits_gets_its_202_when_the_proxy_drains(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.caller.send(request(b"POST", b"/x", b"Prefer: respond-async, wait=60", body=b""))
        exchange = await upstream.next_request()
        stopping = scene.proxy.stop()
        accepted(await scene.caller.response())
        await exchange.respond(OK)
        await stopping
        assert stored(folder) == ["done"]


async def test_of_two_processes_with_one_directory_one_sends_each_job(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder) as one,
        second_scene(upstream.origin, folder) as other,
    ):
        locations = [await scene.submit(b"/%d" % number) for number in range(20) for scene in (one, other)]
        for location in locations:
            await one.until(location, "done")
            assert (await other.result(location)).status == 200
        assert len(upstream.requests) == 40


async def test_queued_jobs_of_a_process_that_has_ended_are_taken_over_and_its_others_are_unknown(
    folder: Path,
) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, pool_size=1) as scene:
        sending, queued = await scene.submit(b"/1"), await scene.submit(b"/2", b"2" * 100_000)
        exchange = await upstream.next_request()
        # Seen from another process, a crash is a runner whose lock is free.
        os.close(scene.jobs.directory._lock)
        scene.jobs.directory._lock = os.open("/dev/null", os.O_RDONLY)
        async with second_scene(upstream.origin, folder) as other:
            await other.until(sending, "unknown")
            taken = await upstream.next_request()
            await taken.respond(OK)
            assert taken.body == b"2" * 100_000
            await other.until(queued, "done")
        await exchange.respond(OK)  # too late: the job stays unknown
        assert (await scene.job(sending))["state"] == "unknown"
        assert [exchange.lines[0].split()[1] for exchange in upstream.requests] == [b"/1", b"/2"]


async def test_no_credential_is_on_the_disk(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit(b"/x", b"document", ASYNC, b"Authorization: Bearer callers-own-secret")
        await until(lambda: stored(folder) == ["sending"])
        for secret in (KEY.encode(), b"callers-own-secret", AUTHORIZATION_VALUE):
            assert secret not in all_bytes(folder)
        await (await upstream.next_request()).respond(ok(b"echo " + AUTHORIZATION_VALUE, status=b"400 Bad"))
        await scene.until(location, "done")
        assert AUTHORIZATION_VALUE not in all_bytes(folder)


AUTHORIZATION_VALUE = b"c2stdGVzdC0wMTIzNDU2Nzg5Og=="


@pytest.fixture
def open_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o755)
    return folder


async def test_files_are_private_also_in_a_directory_that_was_open(open_folder: Path) -> None:
    folder = open_folder
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.submit(b"/x", b"x" * 100_000)
        exchange = await upstream.next_request()
        assert modes(folder.parent) == {0o700}
        assert modes(folder) == {0o600}
        await exchange.respond(OK)


async def test_a_directory_with_files_of_others_keeps_its_permissions(open_folder: Path) -> None:
    (open_folder / "notes.txt").touch()
    running = program(Origin("http", "127.0.0.1", 9), jobs=str(open_folder))
    with pytest.raises(JobsUnusable, match=r"such as notes\.txt, and is open to other users"):
        await running.environments[0]._jobs.start()
    assert modes(open_folder.parent) == {0o755}


def make_foreign_database(folder: Path) -> None:
    folder.mkdir()
    (folder / "jobs.db").write_bytes(b"a text of another program" * 10)


def make_file(folder: Path) -> None:
    folder.write_bytes(b"a file")


def make_database_of_another_version(folder: Path) -> None:
    folder.mkdir()
    JobDatabase(folder / "jobs.db", "upstream").close()
    with closing(sqlite3.connect(folder / "jobs.db")) as connection:
        connection.execute("PRAGMA user_version = 999")


@pytest.mark.parametrize("make", [make_foreign_database, make_database_of_another_version, make_file])
async def test_an_unusable_store_is_an_error_at_start_that_names_it(
    folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder)
    running = program(Origin("http", "127.0.0.1", 9), jobs=str(folder))
    with pytest.raises(JobsUnusable, match=f"jobs: {folder}"):
        await running.environments[0]._jobs.start()


async def test_the_jobs_for_one_upstream_are_never_sent_to_another(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as other:
        async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, pool_size=1) as scene:
            await scene.submit()
            await scene.submit()
            exchange = await upstream.next_request()
            stopping = scene.proxy.stop()
            await exchange.respond(OK)
            await stopping
        fault = f"has the jobs for {upstream.origin}, and not for {other.origin}: name another directory"
        with pytest.raises(JobsUnusable, match=f"jobs: {folder / 'jobs.db'} {fault}"):
            await program(other.origin, jobs=str(folder)).environments[0]._jobs.start()
        assert stored(folder) == ["done", "queued"]
        assert not files(folder, ".lock")
        assert not other.requests


async def test_jobs_beyond_max_jobs_are_rejected_until_there_is_room(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, max_jobs=2) as scene:
        first = await scene.submit()
        await scene.submit()
        response = await scene.caller.post(b"/x", b"", ASYNC)
        assert (response.status, response.json()["code"]) == (503, "jobs_full")
        assert response.values(b"retry-after")
        await (await upstream.next_request()).respond(OK)
        await (await upstream.next_request()).respond(OK)
        await scene.until(first, "done")
        await scene.submit()
        await (await upstream.next_request()).respond(OK)


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [({"max_jobs": 2}, (503, "jobs_full")), ({"jobs_total": "200KiB"}, (507, "jobs_storage_full"))],
)
async def test_a_caller_that_sees_the_end_of_another_processes_job_finds_its_room_free(
    folder: Path, limit: dict[str, object], refusal: tuple[int, str]
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, **limit) as scene,
        second_scene(upstream.origin, folder) as other,
    ):
        ending = await other.submit(b"/x", b"x" * 150_000)
        exchange = await upstream.next_request()
        await scene.submit()
        async with await scene.proxy.caller() as refused:  # its connection closes: the body is not read
            response = await refused.post(b"/x", b"y" * 100_000, ASYNC)
        assert (response.status, response.json()["code"]) == refusal
        await exchange.respond(OK)
        await scene.until(ending, "done")
        await scene.submit(b"/x", b"y" * 100_000)
        for _ in range(2):
            await (await upstream.next_request()).respond(OK)
        await until(lambda: stored(folder) == ["done"] * 3)


async def test_jobs_beyond_jobs_total_are_rejected_and_other_requests_are_not(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, jobs_total="200KiB") as scene,
    ):
        response = await scene.caller.post(b"/x", b"x" * 300_000, ASYNC)
        assert (response.status, response.json()["code"]) == (507, "jobs_storage_full")
        async with await scene.proxy.caller() as caller:
            await caller.send(request(b"POST", b"/x", ASYNC, b"Transfer-Encoding: chunked"))
            for _ in range(4):
                await caller.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert (await caller.response()).status == 507
        assert not files(folder, ".request")
        async with await scene.proxy.caller() as caller:
            assert (await caller.get(b"/x")).status == 200


@pytest.mark.parametrize(
    ("blocks", "free_bytes", "status"),
    [(1000, LEFT_FREE_BYTES + 4, 202), (1000, LEFT_FREE_BYTES + 3, 507), (0, 0, 202)],  # without blocks: unknown
)
async def test_a_submission_leaves_room_on_the_disk_for_jobs_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, free_bytes: int, status: int
) -> None:
    disk = os.statvfs_result((1, 1, blocks, free_bytes, free_bytes, 0, 0, 0, 0, 255))
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        response = await scene.caller.post(b"/x", b"body", ASYNC)
        assert response.status == status
        assert (await scene.caller.post(b"/x", b"body")).status == 200
        alerts = [alert["event"] for alert in scene.proxy.proxy.alerts.to_json()]
        assert ("jobs_stopped" in alerts) == (status == 507)
        await until(lambda: stored(folder) == ["done"] * (status == 202))


@pytest.mark.parametrize(("length", "status"), [(3, 507), (100_000, 202)])
async def test_the_room_on_the_disk_is_also_for_bodies_that_are_still_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, length: int, status: int
) -> None:
    """A large body is in a file already, so the disk itself counts it."""
    free_bytes = LEFT_FREE_BYTES + 6
    disk = os.statvfs_result((1, 1, 1000, free_bytes, free_bytes, 0, 0, 0, 0, 255))
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        async with await scene.proxy.caller() as slow:
            await slow.send(request(b"POST", b"/x", ASYNC, b"Content-Length: %d" % (length + 1)) + b"x" * length)
            await until(lambda: scene.jobs.incoming_bytes == length)
            monkeypatch.setattr(os, "statvfs", lambda _: disk)
            assert (await scene.caller.post(b"/x", b"body", ASYNC)).status == status
        await until(lambda: not scene.jobs.incoming_bytes)
        assert scene.jobs.unwritten_bytes == 0
        assert (await scene.caller.post(b"/x", b"body", ASYNC)).status == 202
        await until(lambda: set(stored(folder)) == {"done"})


async def test_a_full_disk_rejects_jobs_and_nothing_else(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        kept = await scene.submit()
        await scene.until(kept, "done")
        connection = scene.jobs.writer._database._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite fails as with a full disk
        response = await scene.caller.post(b"/x", b"x" * 60_000, ASYNC)
        assert (response.status, response.json()["code"]) == (507, "jobs_storage_full")
        assert (await scene.caller.get(b"/x")).status == 200
        assert (await scene.result(kept)).status == 200
        connection.execute("PRAGMA max_page_count = 1000000")
        await scene.until(await scene.submit(), "done")


async def test_a_job_whose_end_cannot_be_stored_counts_as_sending_until_it_can(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        connection = scene.jobs.writer._database._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        await exchange.respond(ok(b"r" * 60_000))
        await until(lambda: any(alert["event"] == "jobs_stopped" for alert in scene.proxy.proxy.alerts.to_json()))
        assert stored(folder) == ["sending"]
        connection.execute("PRAGMA max_page_count = 1000000")
        await scene.until(location, "done")
        assert len((await scene.result(location)).body) == 60_000
        assert len(upstream.requests) == 1


async def test_ended_jobs_are_removed_after_their_time_with_their_files(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(ok(b"r" * 100_000))) as upstream,
        job_scene(upstream.origin, folder, jobs_keep="1ms") as scene,
    ):
        location = await scene.submit()
        await until(lambda: stored(folder) == ["done"])
        stray = folder / f"{'a' * 22}.request"
        stray.write_bytes(b"left by a crash")
        os.utime(stray, (0, 0))
        await scene.jobs._expire()
        await scene.jobs._sweep()
        assert stored(folder) == []
        assert not files(folder, ".request") + files(folder, ".response")
        assert (await scene.caller.get(location.encode())).status == 404


async def test_a_job_that_ended_before_the_clock_was_set_back_is_removed_all_the_same(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, jobs_keep="1ms") as scene,
    ):
        await scene.submit()
        await until(lambda: stored(folder) == ["done"])
        with closing(sqlite3.connect(folder / "jobs.db")) as connection, connection:
            connection.execute("UPDATE job SET changed_s = changed_s + 1e9")
        await scene.jobs._expire()
        assert stored(folder) == []


async def test_a_clock_that_is_set_forward_removes_no_result_and_no_body_that_arrives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a clock of its own may start in the wrong year."""
    real = time.time
    async with (
        ScriptedUpstream(responding(ok(b"r" * 100_000))) as upstream,
        job_scene(upstream.origin, folder) as scene,
        await scene.proxy.caller() as caller,
    ):
        location = await scene.submit()
        await until(lambda: stored(folder) == ["done"])
        await scene.jobs._expire()
        await scene.jobs._sweep()
        await caller.send(request(b"POST", b"/x", ASYNC, b"Content-Length: 200000") + b"x" * 199_999)
        await until(lambda: bool(files(folder, ".request")))
        monkeypatch.setattr(time, "time", lambda: real() + 10 * 365 * 86_400)
        (arriving,) = files(folder, ".request")
        await scene.jobs._expire()
        await scene.jobs._sweep()
        assert len((await scene.result(location)).body) == 100_000
        assert files(folder, ".request") == [arriving]
        await caller.send(b"x")
        await scene.until(accepted(await caller.response()), "done")


async def test_more_jobs_than_the_window_has_tickets_for_are_all_sent_in_order(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, pool_size=1, max_waiting_per_caller=8) as scene,
    ):
        locations = [await scene.submit(b"/%d" % number) for number in range(40)]
        async with asyncio.timeout(2 * WAIT_S):
            await until(lambda: stored(folder) == ["done"] * 40, 2 * WAIT_S)
        assert [int(exchange.lines[0].split()[1][1:]) for exchange in upstream.requests] == list(range(40))
        assert (await scene.job(locations[-1]))["state"] == "done"
