"""A new process replaces the running one without a lost call."""

import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.commands.process import END_S, Running, environment, running, sandbox
from support.commands.restarts import ask, ending_successors, replaceable_proxy, restart, restarted

Call = Callable[..., tuple[int, dict[str, str], Any]]
PATH = "/api/v4/workflows"
BODY = json.dumps({"description": "x" * 200}).encode()


class Caller:
    """Calls in a loop, in turns on a kept connection and on a new one, and counts the statuses."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        kept = http.client.HTTPConnection(self._address, timeout=60)
        number = 0
        while not self._stop.is_set():
            number += 1
            fresh = http.client.HTTPConnection(self._address, timeout=60)
            for connection, method in ((kept, "GET"), (kept, "POST"), (fresh, "POST" if number % 2 else "GET")):
                connection.request(method, PATH, BODY if method == "POST" else None)
                response = connection.getresponse()
                response.read()
                self.statuses[response.status] += 1
            fresh.close()
        kept.close()

    def stop(self) -> None:
        self._stop.set()


def wait_until_waiting(proxy: Running, count: int) -> None:
    """Returns once `count` requests wait for the rate limit, in all processes that share it."""
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(proxy.admin_url + "/status", timeout=END_S) as response:
            if json.load(response)["environments"][0]["gate"]["waiting"] == count:
                return
    raise AssertionError(f"never {count} requests wait")


def call_and_wait(proxy: Running, calls: ExitStack, waiting: int) -> None:
    """Begins four calls, and returns once `waiting` requests wait. The calls end with `calls`."""
    for _ in range(4):
        caller = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=END_S)
        calls.callback(caller.close)
        caller.request("GET", PATH)
    wait_until_waiting(proxy, waiting)


def test_no_call_fails_while_processes_replace_each_other() -> None:
    shown = {"PYTHONWARNINGS": "default::ResourceWarning"}
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream, **shown) as proxy:
        callers = [Caller(proxy.url.removeprefix("http://")) for _ in range(6)]
        with ThreadPoolExecutor(len(callers)) as pool:
            runs = [pool.submit(caller.run) for caller in callers]
            try:
                pids = [restarted(proxy) for _ in range(2)]
            finally:
                for caller in callers:
                    caller.stop()
            for run in runs:
                run.result()
        statuses = sum((caller.statuses for caller in callers), Counter[int]())
        assert set(statuses) <= {200, 201}, statuses
        assert statuses.total() > 50
        assert len({proxy.process.pid, *pids}) == 3
        assert proxy.process.wait(END_S) == 0, "the first process has served what it had"
    assert b"ResourceWarning" not in proxy.stderr, "each process closes what it has opened"


def test_an_idle_connection_moves_and_its_next_request_gets_its_response(call: Call) -> None:
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream) as proxy:
        connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=60)
        connection.request("GET", PATH)
        connection.getresponse().read()
        kept = connection.sock
        restarted(proxy)
        assert proxy.process.wait(END_S) == 0, "no connection keeps the old process"
        connection.request("GET", PATH)
        assert connection.getresponse().status == 200
        assert connection.sock is kept
        connection.close()
        assert call(proxy.url + PATH)[0] == 200


def test_waiting_callers_are_served_in_turn_by_the_limit_of_both_processes() -> None:
    with sandbox("--limit", "4/1s") as upstream, replaceable_proxy(upstream) as proxy:
        with ThreadPoolExecutor(24) as pool:
            before = [pool.submit(ask, proxy) for _ in range(16)]
            proxy.wait_for("limit_closed")
            restarted(proxy)
            after = [pool.submit(ask, proxy) for _ in range(8)]
            assert [job.result() for job in [*before, *after]] == [200] * 24
        assert proxy.process.wait(END_S) == 0


def refusals(upstream: str) -> int:
    with urllib.request.urlopen(upstream + "/sandbox/stats", timeout=END_S) as response:
        return int(json.load(response)["refused"])


def test_a_restart_under_a_known_limit_costs_no_429() -> None:
    # The window lasts longer than any restart: a new process without the old one's counts would send at once.
    known = ("--limits", "account 4/1h", "--max-wait", "3h")
    with sandbox("--limit", "4/1h") as upstream, replaceable_proxy(upstream, *known) as proxy:
        assert [ask(proxy) for _ in range(4)] == [200] * 4
        with ExitStack() as calls:
            call_and_wait(proxy, calls, 4)
            restarted(proxy)
            call_and_wait(proxy, calls, 8)
            assert refusals(upstream) == 0
        assert proxy.process.wait(END_S) == 0


def test_a_signal_and_the_command_restart_too(call: Call) -> None:
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream) as proxy:
        proxy.process.send_signal(signal.SIGUSR2)
        first = proxy.wait_for("replaced")["pid"]
        assert proxy.process.wait(END_S) == 0
        address = proxy.admin_url.removeprefix("http://")
        with running(["restart", "--admin-listen", address], environment(), is_forked=True) as command:
            assert command.wait() == 0
        second = int(command.stdout.split()[2])
        assert command.stdout == f"restarted: process {second} serves now\n".encode()
        assert call(proxy.url + PATH)[0] == 200
        assert len({proxy.process.pid, first, second}) == 3


def test_settings_that_cannot_be_used_leave_the_old_process_and_say_why(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("")
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream, "--config", str(file)) as proxy:
        file.write_text('max_wait = "long"\n')
        status, document = restart(proxy)
        assert status == 503
        assert "max_wait" in document["reason"]
        event = proxy.wait_for("restart_failed")
        assert document["reason"] == event["reason"]
        with urllib.request.urlopen(proxy.admin_url + "/status", timeout=END_S) as response:
            problems = json.load(response)["environments"][0]["problems"]
        assert [problem["kind"] for problem in problems] == ["restart_failed"]
        assert event["advice"] in problems[0].values()
        assert b"max_wait" in proxy.stderr
        assert call(proxy.url + PATH)[0] == 200
        file.write_text('via = "new"\n')
        restarted(proxy)
        assert call(proxy.url + PATH)[1]["via"] == "1.1 new"


def test_a_new_process_that_dies_before_it_serves_leaves_the_old_one(call: Call, tmp_path: Path) -> None:
    busy = socket.create_server(("127.0.0.1", 0))
    file = tmp_path / "settings.toml"
    file.write_text("")
    with busy, sandbox("--limit", "none") as upstream, running(
        ["serve", "--config", str(file), "--admin-listen", "127.0.0.1:0", "--upstream", upstream],
        environment(NANONETS_API_KEY="sandbox-test-key", NANONETS_PROXY_LISTEN="127.0.0.1:0"),
        is_forked=True,
    ) as proxy, ending_successors(proxy):  # fmt: skip
        proxy.wait_for("started")
        file.write_text(f'[environments.other]\nlisten = "127.0.0.1:{busy.getsockname()[1]}"\n')
        status, document = restart(proxy)
        assert status == 503, document
        assert call(proxy.url + PATH)[0] == 200


def test_the_key_reaches_the_new_process_and_neither_its_environment_nor_its_command_line(call: Call) -> None:
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream) as proxy:
        pid = restarted(proxy)
        assert call(proxy.url + PATH)[0] == 200
        folder = Path(f"/proc/{pid}")
        if folder.exists():
            shown = (folder / "cmdline").read_bytes()
            if os.access(folder / "environ", os.R_OK):
                shown += (folder / "environ").read_bytes()
            assert b"sandbox-test-key" not in shown
        pid = restarted(proxy)
        assert call(proxy.url + PATH)[0] == 200, "the second successor gets it too"


def test_the_file_of_a_unix_socket_stays_until_the_last_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with sandbox("--limit", "none") as upstream, replaceable_proxy(upstream, "--listen", f"unix:{path}") as proxy:
        identity = path.stat().st_ino
        restarted(proxy)
        assert proxy.process.wait(END_S) == 0
        assert path.stat().st_ino == identity
    assert not path.exists()


def test_a_signal_ends_a_replaced_process_that_still_serves() -> None:
    with (
        sandbox("--limit", "1/3600s") as upstream,
        replaceable_proxy(upstream, "--max-wait", "2h") as proxy,
        ThreadPoolExecutor(2) as pool,
    ):
        assert ask(proxy) == 200
        waiting = pool.submit(ask, proxy)
        wait_until_waiting(proxy, 1)
        restarted(proxy)
        proxy.process.terminate()
        assert proxy.process.wait(END_S) == 0
        assert waiting.result() == 503


@contextmanager
def refusing_until(opened: threading.Event) -> Iterator[str]:
    """Runs an upstream that refuses each request for a second until `opened` is set, and yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200 if opened.is_set() else 429)
            self.send_header("Content-Length", "0")
            if not opened.is_set():
                self.send_header("Retry-After", "1")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_waiting_call_is_served_though_the_new_process_ends(number: signal.Signals) -> None:
    opened = threading.Event()
    with (
        refusing_until(opened) as upstream,
        replaceable_proxy(upstream, "--max-wait", "1h") as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(ask, proxy)
        wait_until_waiting(proxy, 1)
        os.kill(restarted(proxy), number)
        opened.set()
        assert waiting.result() == 200
        assert proxy.process.wait(END_S) == 0
