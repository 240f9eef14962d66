"""Who may see a job, and what a repeated submission gets."""

import asyncio
from pathlib import Path

import pytest

from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import make_token
from support.eventually import until
from support.job_scene import ASYNC, accepted, job_scene, paused_writer, stored
from support.raw_caller import RawResponse, request
from support.scripted_upstream import OK, ScriptedUpstream, responding

ONE, TWO = make_token(b"1" * 32), make_token(b"2" * 32)
TOKENS = [str(CallerToken.of("one", ONE)), str(CallerToken.of("two", TWO))]
KEYED = (ASYNC, b'Idempotency-Key: "key-1"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def bearer(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode()


async def test_a_job_is_seen_by_its_caller_alone(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, caller_tokens=TOKENS) as scene,
    ):
        location = accepted(await scene.caller.post(b"/x", b"", ASYNC, bearer(ONE))).encode()
        await until(lambda: stored(folder) == ["done"])
        for path in (location, location + b"/result"):
            assert (await scene.caller.get(path, bearer(ONE))).status == 200
            for method in (b"GET", b"HEAD", b"DELETE"):
                await scene.caller.send(request(method, path, bearer(TWO)))
                response = await scene.caller.response(to_head=method == b"HEAD")
                assert response.status == 404
        async with await scene.proxy.caller() as stranger:
            assert (await stranger.get(location)).status == 401


async def test_a_job_belongs_to_the_name_of_its_caller_also_when_the_token_is_another_one(
    folder: Path, tmp_path: Path
) -> None:
    async def status(token: str) -> int:
        async with await scene.proxy.caller() as caller:
            return (await caller.get(location, bearer(token))).status

    file = tmp_path / "callers"
    file.write_text(f"{CallerToken.of('one', ONE)}\n")
    async with (
        ScriptedUpstream() as upstream,
        job_scene(upstream.origin, folder, caller_tokens_file=str(file)) as scene,
    ):
        location = accepted(await scene.caller.post(b"/x", b"", ASYNC, bearer(ONE))).encode()
        exchange = await upstream.next_request()
        new = make_token(b"3" * 32)
        file.write_text(f"{CallerToken.of('one', new)}\n{CallerToken.of('two', TWO)}\n")
        assert await scene.proxy.proxy.reload() is None
        assert [await status(token) for token in (new, ONE, TWO)] == [200, 401, 404]
        file.write_text(f"{CallerToken.of('renamed', ONE)}\n")
        assert await scene.proxy.proxy.reload() is None
        assert [await status(token) for token in (new, ONE, TWO)] == [401, 404, 401]
        await exchange.respond(OK)  # the job goes on
        await until(lambda: stored(folder) == ["done"])


async def test_access_rules_apply_to_the_submission_and_not_to_the_polls(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, policy=["deny POST /y", "deny GET /_proxy/**"]) as scene,
    ):
        denied = await scene.caller.post(b"/y", b"", ASYNC)
        assert (denied.status, denied.json()["code"]) == (403, "forbidden_by_policy")
        await scene.until(await scene.submit(), "done")


@pytest.mark.usefixtures("one_day")
async def test_a_job_counts_once_in_the_daily_budget(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, daily_budget=["2"], ledger=str(folder.parent / "usage.db")) as scene,
    ):
        for line in (KEYED[1], KEYED[1], b"Idempotency-Key: other"):
            response = await scene.caller.post(b"/x", b"", b"Prefer: respond-async, wait=5", line)
            assert response.status == 200
        response = await scene.caller.post(b"/x", b"", ASYNC)
        assert (response.status, response.json()["code"]) == (429, "daily_budget_used_up")
        assert len(upstream.requests) == 2


@pytest.mark.usefixtures("one_day")
async def test_a_job_whose_caller_hangs_up_while_it_is_stored_counts_in_the_daily_budget(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, daily_budget=["1"], ledger=str(folder.parent / "usage.db")) as scene,
    ):
        with paused_writer(scene.jobs.writer):
            async with await scene.proxy.caller() as leaving:
                await leaving.send(request(b"POST", b"/x", ASYNC))
                await until(lambda: bool(scene.jobs._background))
            await until(lambda: scene.proxy.proxy._server.open_connections == 1)
        await until(lambda: stored(folder) == ["done"])
        response = await scene.caller.post(b"/x", b"", ASYNC)
        assert (response.status, response.json()["code"]) == (429, "daily_budget_used_up")


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize(("lines", "max_jobs"), [((ASYNC,), "1"), (KEYED, "5")])
async def test_a_submission_whose_caller_hangs_up_counts_only_if_it_becomes_a_job_of_its_own(
    lines: tuple[bytes, ...], max_jobs: str, folder: Path
) -> None:
    """Both wait to be stored. The second then has no room, or finds that its key is taken."""
    limits = {"daily_budget": ["2"], "max_jobs": max_jobs, "ledger": str(folder.parent / "usage.db")}
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, **limits) as scene,
    ):
        with paused_writer(scene.jobs.writer):
            async with await scene.proxy.caller() as one, await scene.proxy.caller() as other:
                for count, leaving in ((1, one), (2, other)):
                    await leaving.send(request(b"POST", b"/x", *lines))
                    await until(lambda count=count: len(scene.jobs._background) == count)
            await until(lambda: scene.proxy.proxy._server.open_connections == 1)
        await until(lambda: stored(folder) == ["done"] and not scene.jobs._background)
        await scene.submit()
        response = await scene.caller.post(b"/x", b"", ASYNC)
        assert (response.status, response.json()["code"]) == (429, "daily_budget_used_up")


async def test_a_repeated_submission_with_the_same_key_gets_the_same_job(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        first = await scene.submit(b"/x", b"document" * 20_000, *KEYED)
        for line in (KEYED[1], b"Idempotency-Key: key-1"):
            assert await scene.submit(b"/x", b"document" * 20_000, ASYNC, line) == first
        await (await upstream.next_request()).respond(OK)
        await scene.until(first, "done")
        response = await scene.caller.post(b"/x", b"document" * 20_000, *KEYED)
        assert (response.status, response.body) == (200, b"ok")
        assert len(upstream.requests) == 1
        assert len(stored(folder)) == 1


@pytest.mark.parametrize(("target", "body"), [(b"/x", b"other"), (b"/y", b"document")])
async def test_the_same_key_with_another_payload_is_an_error(folder: Path, target: bytes, body: bytes) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        location = await scene.submit(b"/x", b"document", *KEYED)
        response = await scene.caller.post(target, body, *KEYED)
        assert (response.status, response.json()["code"]) == (422, "idempotency_key_reused")
        assert response.json()["details"]["job"] == location
        await until(lambda: stored(folder) == ["done"])


async def test_a_multipart_upload_with_another_boundary_is_the_same_payload(folder: Path) -> None:
    async def upload(boundary: bytes) -> str:
        kind = b"Content-Type: multipart/form-data; boundary=%b" % boundary
        body = b'--%b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--%b--\r\n' % (
            boundary,
            boundary,
        )
        return await scene.submit(b"/x", body, *KEYED, kind)

    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        assert await upload(b"0123456789abcdef") == await upload(b"fedcba9876543210")
        await until(lambda: stored(folder) == ["done"])
        assert len(upstream.requests) == 1


async def test_of_submissions_at_the_same_time_one_makes_the_job(folder: Path) -> None:
    async def submit() -> RawResponse:
        async with await scene.proxy.caller() as caller:
            return await caller.post(b"/x", b"document" * 20_000, *KEYED)

    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        locations = {accepted(response) for response in await asyncio.gather(*(submit() for _ in range(8)))}
        assert len(locations) == 1
        await (await upstream.next_request()).respond(OK)
        await until(lambda: stored(folder) == ["done"] and not any(folder.glob("*.request")))


async def test_without_a_key_no_time_is_spent_on_a_fingerprint(folder: Path) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        await scene.submit(b"/x", b"document")
        await scene.submit(b"/x", b"document", *KEYED)
        await until(lambda: stored(folder) == ["done", "done"])
        assert list(map(len, stored(folder, "fingerprint"))) == [0, 32]


async def test_keys_of_two_callers_do_not_meet(folder: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        job_scene(upstream.origin, folder, caller_tokens=TOKENS) as scene,
    ):
        one = accepted(await scene.caller.post(b"/x", b"1", *KEYED, bearer(ONE)))
        two = accepted(await scene.caller.post(b"/x", b"2", *KEYED, bearer(TWO)))
        assert one != two
        await until(lambda: stored(folder) == ["done", "done"])


async def test_a_dead_job_frees_its_key(folder: Path) -> None:
    async with ScriptedUpstream() as upstream, job_scene(upstream.origin, folder) as scene:
        first = await scene.submit(b"/x", b"document", *KEYED)
        exchange = await upstream.next_request()
        await exchange.read_body()
        exchange.reset()
        await scene.until(first, "unknown")
        second = await scene.submit(b"/x", b"another", *KEYED)
        assert second != first
        await (await upstream.next_request()).respond(OK)
        await scene.until(second, "done")


@pytest.mark.parametrize("lines", [[b"Idempotency-Key: "], [b"Idempotency-Key: a b"], [b"Idempotency-Key: a"] * 2])
async def test_a_malformed_key_is_an_error_that_names_the_field(folder: Path, lines: list[bytes]) -> None:
    async with ScriptedUpstream(responding(OK)) as upstream, job_scene(upstream.origin, folder) as scene:
        response = await scene.caller.post(b"/x", b"", ASYNC, *lines)
        assert response.status == 400
        assert "Idempotency-Key" in response.json()["message"]
        assert not upstream.requests
