"""Jobs and the gate: costs, forecasts, refusals of one job alone, and what operators see."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.jobs import jobs
from support.eventually import WAIT_S, until
from support.job_scene import ASYNC, accepted, job_scene, paused_writer, stored
from support.raw_caller import request
from support.raw_upstream import ok
from support.scripted_upstream import OK, Exchange, ScriptedUpstream, responding

HINT = json.dumps({"details": {"retry_after": 2.5}, "message": "too large"}).encode()
REFUSED = ok(HINT, b"Content-Type: application/json", status=b"429 Too Many Requests")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


async def test_a_job_with_more_pages_than_the_whole_limit_fails_and_is_never_sent(folder: Path) -> None:
    settings = {"limits": "account 20 pages/minute", "cost_header": "X-Pages"}
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, **settings) as scene:
        location = await scene.submit(b"/x", b"document", ASYNC, b"X-Pages: 30")
        job = await scene.until(location, "failed")
        assert job["status"] == 413
        assert (await scene.result(location)).json()["code"] == "larger_than_limit"
        assert not upstream.requests


async def test_the_forecast_says_when_a_job_will_be_done(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, limits="account 2/minute") as scene,
    ):
        for _ in range(2):
            await scene.until(await scene.submit(), "done")
        responses = [await scene.caller.post(b"/x", b"", ASYNC) for _ in range(5)]
        expected = [response.json()["expected_s"] for response in responses]
        assert 50 < expected[0] <= 60.5
        assert expected[4] > 110
        assert all(
            int(response.value(b"retry-after")) >= value
            for response, value in zip(responses, expected, strict=True)
        )
        assert len(upstream.requests) == 2


async def test_a_job_that_the_upstream_refuses_alone_ends_with_the_429(folder: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.respond(REFUSED if b"/large" in exchange.lines[0] else OK)

    async with (
        ScriptedUpstream(script) as upstream,
        job_scene(upstream.origin, folder) as scene,
        await scene.proxy.caller() as caller,
    ):
        location = await scene.submit(b"/large", b"x", ASYNC, b"Priority: u=3")
        await until(lambda: scene.proxy.waiting == 1)
        while stored(folder) != ["done"]:
            assert (await caller.get(b"/small")).status == 200
            await asyncio.sleep(0.02)
        assert (await scene.job(location))["status"] == 429
        assert (await scene.result(location)).json()["message"] == "too large"


async def test_operators_see_the_jobs(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder, pool_size=1) as scene:
        await scene.submit()
        exchange = await upstream.next_request()
        await scene.submit()
        await until(lambda: scene.jobs.tally.unfinished == 2)

        def fetch(path: str) -> Any:
            with urllib.request.urlopen(f"http://{scene.proxy.admin_address}{path}") as response:
                return response.read().decode()

        status = json.loads(await asyncio.to_thread(fetch, "/status"))["environments"][0]["jobs"]
        assert (status["queued"]["used"], status["sending"], status["done"]) == (1, 1, 0)
        metrics = await asyncio.to_thread(fetch, "/metrics")
        assert 'nanonets_proxy_jobs{state="queued"} 1.0' in metrics
        assert 'nanonets_proxy_jobs{state="sending"} 1.0' in metrics
        await exchange.respond(OK)
        await (await upstream.next_request()).respond(OK)
        await until(lambda: stored(folder) == ["done", "done"])


async def test_a_caller_of_http_1_0_gets_its_responses_whole(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        async with await scene.proxy.caller() as caller:
            await caller.send(request(b"POST", b"/x", ASYNC, body=b"", version=b"HTTP/1.0"))
            location = accepted(await caller.response())
        await scene.until(location, "done")
        async with await scene.proxy.caller() as caller:
            await caller.send(request(b"GET", location.encode() + b"/result", version=b"HTTP/1.0"))
            response = await caller.response()
            assert (response.body, response.value(b"connection")) == (b"ok", b"close")


async def test_a_job_whose_turn_comes_while_it_is_stored_starts_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only place is taken when the job goes to the writer's thread, and free when the job is stored."""
    monkeypatch.setattr(jobs, "_CLAIM_S", 10 * WAIT_S)
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, max_waiting_per_caller=2) as scene,
        await scene.proxy.caller() as caller,
    ):
        writer = scene.jobs.writer
        await until(lambda: scene.jobs._next_sweep_s > 0)
        await writer.run(lambda _: None)  # the maintenance at the start is over, so the queue has only what follows
        first = await scene.submit(b"/1")
        exchange = await upstream.next_request()
        with paused_writer(writer) as before_end:
            await until(before_end.begun.is_set)
            await exchange.respond(OK)
            await until(lambda: writer._queue.qsize() == 1)
            with paused_writer(writer) as with_end:
                before_end.over.set()
                await until(with_end.begun.is_set)
                await caller.send(request(b"POST", b"/2", ASYNC))
                await until(lambda: writer._queue.qsize() == 1)
                with paused_writer(writer):
                    with_end.over.set()
                    await until(lambda: not scene.jobs.runner.has(first.rpartition("/")[2]))
        await (await upstream.next_request()).respond(OK)
        await scene.until(accepted(await caller.response()), "done")


async def test_jobs_that_are_submitted_together_take_no_more_places_than_there_are(folder: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, max_waiting_per_caller=2) as scene,
        scene.proxy.callers(10) as callers,
    ):
        writer = scene.jobs.writer
        with paused_writer(writer) as pause:
            await until(pause.begun.is_set)
            for caller in callers:
                await caller.send(request(b"POST", b"/x", ASYNC))
            await until(lambda: writer._queue.qsize() >= 10)
        for caller in callers:
            accepted(await caller.response())
        await until(lambda: bool(scene.jobs.runner._running))  # after a claim, if one was under way
        assert len(scene.jobs.runner._running) == 1
        for _ in callers:
            await (await upstream.next_request()).respond(OK)
        await until(lambda: stored(folder) == ["done"] * 10)


async def test_a_submission_reserves_no_room_that_a_claim_may_be_taking(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        runner, lane = scene.jobs.runner, JobLane("caller", "account", 3)

        def has_room() -> bool:
            reserved = runner.reserve(lane)
            if reserved:
                runner.release(lane)
            return reserved

        with paused_writer(scene.jobs.writer) as pause:
            await until(pause.begun.is_set)
            claim = asyncio.create_task(runner.claim())  # the first one of the scene may be under way, too
            await until(lambda: not has_room())
        await claim
        await until(has_room)


async def test_a_job_starts_at_once_when_the_job_of_another_lane_frees_the_only_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_CLAIM_S", 10 * WAIT_S)
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, max_waiting_per_caller=2, max_waiting=2) as scene,
    ):
        await scene.submit(b"/background")
        exchange = await upstream.next_request()
        await scene.submit(b"/urgent", b"", ASYNC, b"Priority: u=0")
        await exchange.respond(OK)
        await (await upstream.next_request()).respond(OK)
        await until(lambda: stored(folder) == ["done", "done"])
