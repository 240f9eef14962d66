"""A restart whose new process fails: the old process serves its callers meanwhile."""

import asyncio
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.process import restart
from nanonets_proxy.process.restart import Restart
from nanonets_proxy.process.service_manager import ServiceManager
from support.eventually import WAIT_S, until
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

# The new process ends, but a process that it has started keeps its standard error open, until a file exists.
_WITH_ORPHAN = """
import os, sys, time
from nanonets_proxy.process.inheritance import LINK_VARIABLE
folder = sys.argv[1]
if os.fork():
    print("nanonets-proxy: no settings", file=sys.stderr)
    raise SystemExit(3)
os.close(int(os.environ[LINK_VARIABLE]))
open(f"{folder}/orphaned", "w").close()
while not os.path.exists(f"{folder}/end"):
    time.sleep(0.01)
"""


async def test_callers_are_served_while_the_error_output_of_the_new_process_stays_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restart, "_END_S", WAIT_S)
    monkeypatch.setattr(restart, "_command", lambda: [sys.executable, "-c", _WITH_ORPHAN, str(tmp_path)])
    reading = asyncio.Event()
    text = restart._ErrorOutput.text
    loop = asyncio.get_running_loop()

    def noted(output: restart._ErrorOutput) -> str:
        loop.call_soon_threadsafe(reading.set)
        return text(output)

    monkeypatch.setattr(restart._ErrorOutput, "text", noted)
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        replacing = asyncio.create_task(
            Restart(proxy.program, {}, ServiceManager({}, is_successor=True), is_successor=True)()
        )
        try:
            await until((tmp_path / "orphaned").exists)
            await reading.wait()
            async with await proxy.caller() as caller:
                assert (await caller.get(b"/x")).status == 200
            assert not replacing.done()
        finally:
            (tmp_path / "end").touch()
        assert (await replacing).fault == "no settings"


async def test_a_restart_without_a_free_file_for_its_link_is_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", no_file)
            result = await Restart(proxy.program, {}, ServiceManager({}, is_successor=True), is_successor=True)()
        assert result.fault == "no process could be started: Too many open files"
        (alert,) = proxy.program.environments[0].alerts.to_json()
        assert (alert["event"], alert["reason"]) == ("restart_failed", result.fault)
