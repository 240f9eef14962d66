"""What a caller gets that submits a request as a job, polls it, and fetches its response."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.jobs.lifecycle import JobState
from nanonets_proxy.errors import JobsFull
from nanonets_proxy.jobs import submission
from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.records import Tally
from support.eventually import until
from support.job_scene import ASYNC, accepted, job_scene, stored
from support.proxy_harness import AUTHORIZATION, running_proxy
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, ScriptedUpstream, responding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


async def test_a_job_is_accepted_sent_and_its_response_can_be_fetched_as_it_was(folder: Path) -> None:
    response = ok(b"result", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Odd: caf\xe9", status=b"201 Made")
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        submitted = await scene.caller.post(b"/api/v4/workflows?q=1", b"document", ASYNC, b"X-Own: 1")
        location = accepted(submitted)
        assert submitted.value(b"preference-applied") == b"respond-async"
        assert int(submitted.value(b"retry-after")) >= 1
        assert location.startswith("/_proxy/jobs/")
        exchange = await upstream.next_request()
        assert exchange.lines[0] == b"POST /api/v4/workflows?q=1 HTTP/1.1"
        assert {b"X-Own: 1", b"Content-Length: 8", AUTHORIZATION, ASYNC} <= set(exchange.lines)
        await exchange.respond(response)
        assert exchange.body == b"document"
        job = await scene.until(location, "done")
        assert (job["status"], job["result"]) == (201, f"{location}/result")
        fetched = await scene.result(location)
        assert fetched.status_line == b"HTTP/1.1 201 Made"
        assert fetched.body == b"result"
        assert fetched.values(b"set-cookie") == [b"a=1", b"b=2"]
        assert fetched.value(b"x-odd") == b"caf\xe9"
        assert (await scene.result(location)).body == b"result"  # as often as the caller wants


async def test_the_store_has_the_job_as_sending_before_the_upstream_gets_a_byte(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        assert stored(folder) == ["sending"]
        await exchange.respond(OK)
        await scene.until(location, "done")


async def test_the_response_comes_at_once_if_it_comes_within_the_preferred_wait(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(ok(b"result"))) as upstream,
        job_scene(upstream.origin, folder) as scene,
    ):
        response = await scene.caller.post(b"/x", b"body", b"Prefer: respond-async, wait=5")
        assert (response.status, response.body) == (200, b"result")
        assert not response.values(b"location")


async def test_after_the_preferred_wait_the_caller_gets_a_202(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        response = await scene.caller.post(b"/x", b"body", b"Prefer: respond-async, wait=1")
        location = accepted(response)
        assert response.value(b"preference-applied") == b"respond-async, wait=1"
        await (await upstream.next_request()).respond(OK)
        await scene.until(location, "done")


async def test_callers_that_wait_for_queued_jobs_look_into_the_store_at_a_bounded_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_LOOK_S", 0.001)
    monkeypatch.setattr(submission, "_MOST_LOOKS_PER_S", 10.0)
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, pool_size=1, max_waiting_per_caller=2) as scene,
        scene.proxy.callers(10) as callers,
    ):
        for number, caller in enumerate(callers, start=1):
            await caller.send(request(b"POST", b"/x", b"Prefer: respond-async, wait=600", body=b""))
            await until(lambda number=number: scene.jobs.watched == number)
        reads, read = 0, scene.jobs.read

        async def counted(operation: Callable[[JobDatabase], Any]) -> Any:
            nonlocal reads
            reads += 1
            return await read(operation)

        monkeypatch.setattr(scene.jobs, "read", counted)
        await until(lambda: reads >= 10)
        reads, began_s = 0, time.monotonic()
        await until(lambda: reads >= 10)
        assert time.monotonic() - began_s > 0.5, "each caller looks once a second"
        for _ in callers:
            await (await upstream.next_request()).respond(OK)
        for caller in callers:
            assert (await caller.response()).status == 200


async def test_without_the_setting_the_preference_is_ignored_and_no_path_is_reserved() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", ASYNC)).status == 200
        assert (await caller.get(b"/_proxy/jobs/x")).status == 200
        assert [exchange.lines[0] for exchange in upstream.requests] == [
            b"GET /x HTTP/1.1",
            b"GET /_proxy/jobs/x HTTP/1.1",
        ]


@pytest.mark.parametrize("line", [b"Prefer: respond-asynchronously", b"Prefer: wait=5", b"X-Other: 1"])
async def test_a_request_that_does_not_ask_for_it_is_no_job(folder: Path, line: bytes) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        assert (await scene.caller.post(b"/x", b"body", line)).status == 200
        assert stored(folder) == []


async def test_a_head_request_is_served_as_usual(folder: Path) -> None:
    async with ScriptedUpstream(responding(ok(b""))) as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.caller.send(request(b"HEAD", b"/x", ASYNC))
        assert (await scene.caller.response(to_head=True)).status == 200
        assert stored(folder) == []


@pytest.mark.parametrize("path", [b"/_proxy", b"/_proxy?x", b"/_proxy/", b"/_proxy/jobs", b"/_proxy/other/x"])
async def test_a_reserved_path_is_never_forwarded(folder: Path, path: bytes) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        for method in (b"GET", b"POST", b"DELETE"):
            await scene.caller.send(request(method, path))
            response = await scene.caller.response()
            assert (response.status, response.json()["code"]) == (404, "not_found")
        assert (await scene.caller.get(b"/_proxyx")).status == 200
        assert len(upstream.requests) == 1


async def test_a_large_body_is_in_a_file_and_a_large_response_too(folder: Path) -> None:
    body, result = b"document" * 40_000, b"result" * 60_000
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit(b"/x", body)
        exchange = await upstream.next_request()
        job_id = location.rpartition("/")[2]
        assert (folder / f"{job_id}.request").read_bytes() == body
        await exchange.respond(ok(result))
        assert exchange.body == body
        await scene.until(location, "done")
        await until(lambda: not (folder / f"{job_id}.request").exists())
        assert (folder / f"{job_id}.response").stat().st_mode & 0o777 == 0o600
        assert (await scene.result(location)).body == result


async def test_a_chunked_body_is_sent_with_its_length_and_a_chunked_response_is_fetched_with_its_length(
    folder: Path,
) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        head = request(b"POST", b"/x", ASYNC, b"Transfer-Encoding: chunked")
        await scene.caller.send(head + b"4\r\nbody\r\n0\r\n\r\n")
        location = accepted(await scene.caller.response())
        exchange = await upstream.next_request()
        assert b"Content-Length: 4" in exchange.lines
        await exchange.respond(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nresult\r\n0\r\n\r\n")
        await scene.until(location, "done")
        fetched = await scene.result(location)
        assert (fetched.value(b"content-length"), fetched.body) == (b"6", b"result")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_response_without_a_body_is_fetched_without_one(folder: Path, status: bytes) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await (await upstream.next_request()).respond(b"HTTP/1.1 %b\r\n\r\n" % status)
        await scene.until(location, "done")
        assert (await scene.result(location)).status == int(status[:3])
        assert (await scene.job(location))["state"] == "done"  # the connection is in step


async def test_a_caller_that_waits_for_100_continue_gets_it(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        lines = (ASYNC, b"Expect: 100-continue", b"Content-Length: 4")
        await scene.caller.send(request(b"POST", b"/x", *lines))
        assert (await scene.caller.head()).startswith(b"HTTP/1.1 100 ")
        await scene.caller.send(b"body")
        location = accepted(await scene.caller.response())
        await scene.until(location, "done")
        assert not [line for line in upstream.requests[0].lines if line.lower().startswith(b"expect")]


async def test_a_caller_that_hangs_up_during_its_upload_leaves_nothing(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        async with await scene.proxy.caller() as caller:
            await caller.send(request(b"POST", b"/x", ASYNC, b"Content-Length: 1000000") + b"x" * 200_000)
            await until(lambda: any(folder.glob("*.request")))
            caller.close()
        await until(lambda: not any(folder.glob("*.request")))
        assert stored(folder) == []
        assert scene.jobs.incoming_bytes == 0
        assert not upstream.requests


async def test_a_job_lives_on_when_its_caller_hangs_up_after_the_upload(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        async with await scene.proxy.caller() as caller:
            await caller.send(request(b"POST", b"/x", b"Prefer: respond-async, wait=60", body=b"body"))
            exchange = await upstream.next_request()
        await exchange.respond(OK)
        await until(lambda: stored(folder) == ["done"])


async def test_the_state_before_the_end_has_no_response(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        exchange = await upstream.next_request()
        job = await scene.job(location)
        assert (job["state"], "result" in job) == ("sending", False)
        response = await scene.result(location)
        assert (response.status, response.json()["code"]) == (409, "job_without_response")
        assert response.json()["details"]["state"] == "sending"
        await exchange.respond(OK)
        await scene.until(location, "done")


async def test_a_job_knows_only_get_head_and_delete(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit()
        await scene.until(location, "done")
        response = await scene.caller.post(location.encode(), b"")
        assert (response.status, response.value(b"allow")) == (405, b"GET, HEAD, DELETE")
        response = await scene.caller.post(f"{location}/result".encode(), b"")
        assert (response.status, response.value(b"allow")) == (405, b"GET, HEAD")
        for path in (location, f"{location}/result"):
            await scene.caller.send(request(b"HEAD", path.encode()))
            assert (await scene.caller.response(to_head=True)).status == 200
        assert (await scene.result(location)).status == 200


async def test_background_jobs_go_after_the_calls_of_the_same_caller(folder: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, pool_size=1) as scene,
        await scene.proxy.caller() as waiting,
    ):
        await scene.submit(b"/first")
        first = await upstream.next_request()
        await scene.submit(b"/job")
        urgent = await scene.submit(b"/urgent", b"", ASYNC, b"Priority: u=0")
        call = asyncio.create_task(waiting.get(b"/call"))
        await until(lambda: scene.proxy.waiting == 3)
        await first.respond(OK)
        order = []
        for _ in range(3):
            exchange = await upstream.next_request()
            order.append(exchange.lines[0].split()[1])
            await exchange.respond(OK)
        assert order == [b"/urgent", b"/call", b"/job"]
        assert (await call).status == 200
        await scene.until(urgent, "done")
        await until(lambda: stored(folder) == ["done"] * 3)


async def test_a_look_for_room_replaces_no_newer_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, max_jobs=1) as scene:
        await scene.submit()
        await upstream.next_request()
        jobs, read, newer = scene.jobs, scene.jobs.read, Tally({JobState.QUEUED: 7})

        async def read_while_the_writer_counts(operation: Callable[[JobDatabase], Tally]) -> Tally:
            older = await read(operation)
            jobs._note_tally(newer)
            return older

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "read", read_while_the_writer_counts)
            with pytest.raises(JobsFull):
                await jobs.check_room(0)
            assert jobs.tally is newer
