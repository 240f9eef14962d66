"""A restart at the limit of the container's processes, `pids.max`: no call is lost, though threads cannot start."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.aio import daemon_thread
from nanonets_proxy.aio.daemon_thread import NoThread
from nanonets_proxy.process import restart
from nanonets_proxy.process.restart import Restart
from nanonets_proxy.process.service_manager import ServiceManager
from nanonets_proxy.process.successor.launch import Launched, launch
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

# A successor that says all that a new process says, until it is the main one.
_SUCCESSOR = """
import os, socket, sys
from nanonets_proxy.process.inheritance import LINK_VARIABLE
from nanonets_proxy.process.successor.messages import receive_document, send_document
link = socket.socket(fileno=int(os.environ[LINK_VARIABLE]))
for own in ({"upstreams": {}}, {}):
    receive_document(link)
    send_document(link, own)
receive_document(link)
link.recv(1)
"""
_THREADS_UNTIL_IT_SERVES = 4
_THREADS = 6


@pytest.mark.parametrize("started", range(_THREADS + 1))
async def test_the_old_process_serves_on_or_the_new_one_does(monkeypatch: pytest.MonkeyPatch, started: int) -> None:
    """`started` threads of the restart start, and no further one."""
    threads = iter(range(started))
    refused: list[Any] = []

    def unless_refused(start: Callable[..., Any]) -> Callable[..., Any]:
        def start_some(*arguments: Any) -> Any:
            if next(threads, None) is None:
                refused.append(arguments)
                raise NoThread
            return start(*arguments)

        return start_some

    monkeypatch.setattr(restart, "in_daemon_thread", unless_refused(daemon_thread.in_daemon_thread))
    monkeypatch.setattr(restart, "start_daemon_thread", unless_refused(daemon_thread.start_daemon_thread))
    monkeypatch.setattr(restart, "_command", lambda: [sys.executable, "-c", _SUCCESSOR])
    launched: list[Launched] = []

    def launch_noted(*arguments: Any) -> Launched:
        launched.append(launch(*arguments))
        return launched[-1]

    monkeypatch.setattr(restart, "launch", launch_noted)
    async with ScriptedUpstream(responding(OK)) as upstream, running_proxy(upstream.origin) as proxy:
        replace = Restart(proxy.program, {}, ServiceManager({}, is_successor=True), is_successor=True)
        result = await replace()
        assert bool(refused) is (started < _THREADS)
        if started >= _THREADS_UNTIL_IT_SERVES:
            assert result.fault is None
            replace.close()
            return
        assert result.fault is not None
        assert "no thread could be started" in result.fault
        assert len(launched) == min(started, 1)
        assert not any(_exists(process.pid) for process in launched), "the new process has ended"
        async with await proxy.caller() as caller:
            assert (await caller.get(b"/x")).status == 200


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
