"""Jobs of the real process: over a restart, and with a directory that cannot be used."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from support.commands.process import ANY_PORTS, completed, environment
from support.commands.restarts import replaceable_proxy, restarted
from support.eventually import until
from support.job_scene import ASYNC, accepted, stored
from support.raw_caller import RawCaller
from support.raw_upstream import ok
from support.scripted_upstream import ScriptedUpstream


async def test_over_a_restart_the_old_process_ends_what_it_sends_and_the_new_one_takes_the_queue(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "jobs"
    async with ScriptedUpstream() as upstream, AsyncExitStack() as stack:
        context = replaceable_proxy(str(upstream.origin), "--jobs", str(folder), "--pool-size", "1")
        proxy = await asyncio.to_thread(context.__enter__)
        stack.push_async_callback(asyncio.to_thread, context.__exit__, None, None, None)
        address = proxy.url.removeprefix("http://")
        async with await RawCaller.connect(address) as caller:
            sending = accepted(await caller.post(b"/1", b"", ASYNC))
            exchange = await upstream.next_request()
            queued = accepted(await caller.post(b"/2", b"", ASYNC))
        await asyncio.to_thread(restarted, proxy)
        await exchange.respond(ok(b"first"))
        await until(lambda: len(upstream.requests) == 2)
        await upstream.requests[1].respond(ok(b"second"))
        await until(lambda: stored(folder) == ["done", "done"])
        async with await RawCaller.connect(address) as caller:
            assert (await caller.get(f"{sending}/result".encode())).body == b"first"
            assert (await caller.get(f"{queued}/result".encode())).body == b"second"
        assert len(upstream.requests) == 2


def test_a_directory_that_cannot_be_used_is_an_error_at_start_that_names_the_setting(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "jobs"
    arguments = ["serve", *ANY_PORTS, "--upstream", "http://127.0.0.1:9"]
    variables = {"NANONETS_API_KEY": "test-key-0123456789", "NANONETS_PROXY_JOBS": str(missing)}
    ended = completed(arguments, environment(**variables), tmp_path)
    assert ended.returncode == 2
    fault = f"jobs: {missing} cannot be made: {missing.parent} does not exist"
    assert ended.stderr == f"nanonets-proxy: {fault} (environment NANONETS_PROXY_JOBS)\n"
