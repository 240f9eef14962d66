"""A process with few open files warns, keeps files for the upstream, and rejects further callers with a 503."""

import http.client
import json
import resource
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from typing import Any

import pytest

from support.commands.process import COMMAND, END_S, Running, environment, proxy_to, sandbox

OPEN_FILES = 128


@pytest.fixture(autouse=True)
def few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each process that the test starts a small limit of open files."""
    start = subprocess.Popen.__init__

    def limited(process: Any, arguments: Any, **options: Any) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))

        start(process, arguments, **options, preexec_fn=limit if "--upstream" in arguments else None)

    monkeypatch.setattr(subprocess.Popen, "__init__", limited)


def get(proxy: Running) -> int:
    with urllib.request.urlopen(f"{proxy.url}/api/v4/workflows", timeout=END_S) as response:
        status: int = response.status
        return status


def test_a_low_limit_of_open_files_is_a_warning_at_start() -> None:
    with sandbox() as upstream, proxy_to(upstream, is_forked=False) as proxy:
        event = proxy.wait_for("max_connections_lowered")
        assert (event["level"], event["max_connections"], event["open_files"]) == ("warning", 12_000, OPEN_FILES)
        assert 2 <= event["used"] < OPEN_FILES // 3
        with urllib.request.urlopen(f"{proxy.admin_url}/readyz") as response:
            (alert,) = json.load(response)["alerts"]
        assert (alert["event"], alert["used"]) == ("max_connections_lowered", event["used"])


def test_a_flood_of_the_admin_listener_leaves_callers_alone() -> None:
    with sandbox() as upstream, proxy_to(upstream, is_forked=False) as proxy, ExitStack() as stack:
        host, _, port = proxy.admin_url.removeprefix("http://").rpartition(":")
        for _ in range(2 * OPEN_FILES):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert [get(proxy) for _ in range(3)] == [200] * 3


def test_each_of_too_many_callers_gets_its_response_or_a_503() -> None:
    with sandbox("--latency", "1s") as upstream, proxy_to(upstream, is_forked=False) as proxy, ExitStack() as stack:
        address = proxy.url.removeprefix("http://")
        callers = []
        for _ in range(2 * OPEN_FILES):
            caller = http.client.HTTPConnection(address, timeout=END_S)
            stack.callback(caller.close)
            caller.request("GET", "/api/v4/workflows")
            callers.append(caller)
        statuses = [caller.getresponse().status for caller in callers]
        used = proxy.wait_for("max_connections_lowered")["used"]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= used
        proxy.wait_for("connections_rejected", limit="open_files", value=OPEN_FILES)
        assert proxy.end() == 0
        assert sum(event["event"] == "connections_rejected" for event in proxy.all_events()) == 1


def test_check_warns_of_a_low_limit_of_open_files() -> None:
    done = subprocess.run(
        [*COMMAND, "check", "--upstream", "http://127.0.0.1:1"],
        env=environment(NANONETS_API_KEY="the-key"),
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [line for line in done.stdout.splitlines() if "open files" in line.split("  ")[1:2]]
    assert line.startswith(f"warn  open files  {OPEN_FILES} allow ")
    assert "ulimit -n" in line
