"""A proxy under systemd: the sockets that it gets, what it says, and a stop while two processes serve."""

import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.commands.ports import free_port
from support.commands.process import COMMAND, END_S, environment, running, sandbox
from support.commands.restarts import ask, ending_successors, replaceable_proxy, restarted

Call = Callable[..., tuple[int, dict[str, str], Any]]
PATH = "/api/v4/workflows"


_WITH_SOCKETS = """
import os, socket, sys
count = int(sys.argv[1])
for number in range(count):
    sock = socket.create_server(("127.0.0.1", int(sys.argv[2 + number])))
    if sock.fileno() != 3 + number:
        os.dup2(sock.fileno(), 3 + number)
    os.set_inheritable(3 + number, True)
    sock.detach()
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(count)
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


def test_a_socket_of_systemd_serves_the_listener_with_its_address(call: Call) -> None:
    port = free_port()
    within = [sys.executable, "-c", _WITH_SOCKETS, "1", str(port)]
    with sandbox("--limit", "none") as upstream, running(
        ["serve", "--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0", "--upstream", upstream],
        environment(NANONETS_API_KEY="sandbox-test-key"),
        within=within,
    ) as proxy, ending_successors(proxy):  # fmt: skip
        assert proxy.wait_for("started")["listen"] == [f"127.0.0.1:{port}"]
        assert call(proxy.url + PATH)[0] == 200
        restarted(proxy)
        assert call(proxy.url + PATH)[0] == 200


def test_a_socket_of_systemd_that_no_setting_names_is_an_error_at_start() -> None:
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", _WITH_SOCKETS, "1", str(port), *COMMAND, "serve", "--listen", "127.0.0.1:0"],
        env=environment(NANONETS_API_KEY="sandbox-test-key", NANONETS_PROXY_ADMIN_LISTEN="127.0.0.1:0"),
        capture_output=True,
        text=True,
        timeout=END_S,
    )
    assert done.returncode == 2
    assert f"no setting names the socket 127.0.0.1:{port} of systemd" in done.stderr


def test_systemd_is_told_of_start_reload_restart_and_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000", "FDSTORE": "4"}
        with (
            sandbox("--limit", "none") as upstream,
            replaceable_proxy(upstream, **env) as proxy,
            receiving(manager) as told,
        ):
            assert told("FDSTORE=1") == "FDSTORE=1\nFDNAME=stored\nfiles=2"
            assert told("READY=1") == "READY=1"
            assert told("WATCHDOG=1") == "WATCHDOG=1"
            proxy.process.send_signal(signal.SIGHUP)
            assert "\nMONOTONIC_USEC=" in told("RELOADING=1")
            assert told("READY=1") == "READY=1"
            pid = restarted(proxy)
            assert told("MAINPID=") == f"MAINPID={pid}"
            assert told("READY=1") == "READY=1"
            assert told("WATCHDOG=1") == "WATCHDOG=1"
            os.kill(pid, signal.SIGTERM)
            assert told("STOPPING=1") == "STOPPING=1"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_new_process_belongs_to_the_service_manager_and_ends_after_the_old_one() -> None:
    """systemd sends SIGTERM to all processes of a service, and again once the main process has ended."""
    with (
        socket.create_server(("127.0.0.1", 0)) as upstream,
        replaceable_proxy(f"http://127.0.0.1:{upstream.getsockname()[1]}", "--drain-timeout", "2m") as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        upstream.settimeout(END_S)
        in_flight = pool.submit(ask, proxy)
        connection = upstream.accept()[0]
        pid = restarted(proxy)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent != proxy.process.pid
        end = os.pidfd_open(pid)
        with connection, os.fdopen(end):
            for each in (pid, proxy.process.pid):
                os.kill(each, signal.SIGTERM)
            proxy.wait_for("stopped")  # the new process; the old one still has the call
            assert not select.select([end], [], [], 0.5)[0], "it waits for the old one"
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            assert in_flight.result() == 200
            assert proxy.process.wait(END_S) == 0
            assert select.select([end], [], [], END_S)[0]


@contextmanager
def receiving(manager: socket.socket) -> Iterator[Callable[[str], str]]:
    """Reads what a service manager is told, and yields a function that returns the next message with a start."""
    messages: queue.Queue[str] = queue.Queue()

    def read() -> None:
        while True:
            message, files, _, _ = socket.recv_fds(manager, 4096, 8)
            for file in files:
                os.close(file)
            messages.put(message.decode() + (f"\nfiles={len(files)}" if files else ""))
            if message == b"end":
                return

    def next_with(start: str) -> str:
        while not (message := messages.get(timeout=END_S)).startswith(start):
            pass
        return message

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield next_with
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", manager.getsockname())
        reader.join()
