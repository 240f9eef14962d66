"""The end of the real process: signals at its start, the delay before the drain, and POST /quitquitquit."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.commands.ports import free_port
from support.commands.process import COMMAND, END_S, Running, environment, proxy_to, running, sandbox
from support.eventually import wait_until

Call = Callable[..., tuple[int, dict[str, str], Any]]
STOPS = (signal.SIGTERM, signal.SIGINT)
DELAY_S = 1.0
LONG = ("--drain-delay", "600s")
GET = b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=END_S)


def _get(caller: socket.socket) -> bytes:
    caller.sendall(GET)
    return caller.recv(65536)


def _assert_serves_as_before(proxy: Running, kept: socket.socket, call: Call) -> None:
    """Checks a new connection, a kept connection and the admin listener during the delay."""
    assert call(f"{proxy.url}/api/v4/workflows")[0] == 200
    response = _get(kept)
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" not in response.lower()
    status, _, body = call(f"{proxy.admin_url}/readyz")
    assert (status, body["status"], body["reason"]) == (503, "not ready", "draining")
    assert call(f"{proxy.admin_url}/livez")[0] == 200


# --- drain_delay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOPS)
def test_during_the_delay_callers_are_served(call: Call, number: signal.Signals) -> None:
    with sandbox() as upstream, proxy_to(upstream, *LONG) as proxy:
        with _connect(proxy.url) as kept:
            assert _get(kept).startswith(b"HTTP/1.1 200")
            assert call(f"{proxy.admin_url}/readyz")[0] == 200
            proxy.process.send_signal(number)
            proxy.wait_for("stop_requested", by=number.name, drain_delay_s=600.0)
            _assert_serves_as_before(proxy, kept, call)
        proxy.end(signal.SIGKILL)
        assert not any(event["event"] == "draining" for event in proxy.all_events())


@pytest.mark.parametrize("number", STOPS)
def test_after_the_delay_the_proxy_drains(number: signal.Signals) -> None:
    with sandbox() as upstream, proxy_to(upstream, "--drain-delay", f"{DELAY_S}s", is_forked=False) as proxy:
        with _connect(proxy.url) as kept:
            assert _get(kept).startswith(b"HTTP/1.1 200")
            began_s = time.monotonic()
            proxy.process.send_signal(number)
            proxy.wait_for("draining")
            assert time.monotonic() - began_s > DELAY_S * 0.9
            assert kept.recv(1) == b""
        assert proxy.wait() == 0


def test_without_a_delay_the_drain_begins_at_once(call: Call) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        assert call(f"{proxy.url}/api/v4/workflows")[0] == 200
        assert proxy.end() == 0
        assert proxy.wait_for("stop_requested")["drain_delay_s"] == 0.0


@pytest.mark.parametrize("second", STOPS)
def test_a_second_signal_during_the_delay_ends_the_process_at_once(second: signal.Signals) -> None:
    with sandbox() as upstream, proxy_to(upstream, *LONG) as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_for("stop_requested")
        assert proxy.end(second) == 128 + second


class HeldRequest:
    """An upstream that holds one request until the test lets its response go."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.settimeout(END_S)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def wait(self) -> None:
        """Waits until the request has arrived."""
        self._connection = self._stack.enter_context(self._listener.accept()[0])
        self._connection.settimeout(END_S)
        assert self._connection.recv(65536).startswith(b"GET ")

    def respond(self) -> None:
        self._connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def held() -> Iterator[HeldRequest]:
    with contextlib.ExitStack() as stack:
        yield HeldRequest(stack)


def test_liveness_stays_on_a_unix_socket_until_the_drain_ends(held: HeldRequest, tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with (
        proxy_to(held.url, "--admin-listen", f"unix:{path}") as proxy,
        _connect(proxy.url) as caller,
    ):
        caller.sendall(GET)
        held.wait()
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_for("draining", in_flight=1)
        assert _get_unix(path, "/livez").startswith(b"HTTP/1.1 200 OK\r\n")
        held.respond()
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.wait() == 0
    assert not path.exists()


def _get_unix(path: Path, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(END_S)
        caller.connect(str(path))
        caller.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: caller.recv(65536), b""))


def test_a_signal_loses_no_request_that_has_arrived() -> None:
    """The process is halted, so that all of it waits in the kernel when the signal comes."""
    with sandbox("--limit", "none") as upstream, proxy_to(upstream) as proxy:
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(_connect(proxy.url)) for _ in range(20)]
            assert all(_get(caller).startswith(b"HTTP/1.1 200") for caller in kept)
            proxy.process.send_signal(signal.SIGSTOP)
            queued = [stack.enter_context(_connect(proxy.url)) for _ in range(20)]
            late = [stack.enter_context(_connect(proxy.url)) for _ in range(20)]
            for caller in kept + queued:
                caller.sendall(GET)
            proxy.process.send_signal(signal.SIGTERM)
            proxy.process.send_signal(signal.SIGCONT)
            for caller in late:
                caller.sendall(GET)
            for caller in kept + queued + late:
                assert caller.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.wait() == 0


# --- POST /quitquitquit ----------------------------------------------------------------------------


def test_quitquitquit_is_off_by_default(call: Call) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        assert call(f"{proxy.admin_url}/quitquitquit", "POST")[0] == 404
        assert call(f"{proxy.url}/api/v4/workflows")[0] == 200


def test_quitquitquit_drains_at_once_without_a_signal(call: Call) -> None:
    with sandbox() as upstream, proxy_to(upstream, "--admin-quit", *LONG) as proxy:
        assert call(f"{proxy.admin_url}/quitquitquit")[0] == 405, "a GET does not end the proxy"
        assert call(f"{proxy.admin_url}/quitquitquit", "POST", Origin="https://evil.example")[0] == 403
        assert proxy.process.poll() is None
        status, _, body = call(f"{proxy.admin_url}/quitquitquit", "POST")
        assert (status, body) == (200, {"status": "draining"})
        assert proxy.wait() == 0
        assert proxy.wait_for("stop_requested")["by"] == "POST /quitquitquit"


def test_quitquitquit_ends_the_delay(call: Call) -> None:
    with sandbox() as upstream, proxy_to(upstream, "--admin-quit", *LONG) as proxy:
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_for("stop_requested")
        assert call(f"{proxy.admin_url}/quitquitquit", "POST")[0] == 200
        assert proxy.wait() == 0


def test_the_signal_after_quitquitquit_is_the_first_one(call: Call, held: HeldRequest) -> None:
    """The app quits the proxy, and the supervisor then stops both: requests in flight must still finish."""
    with proxy_to(held.url, "--admin-quit") as proxy, _connect(proxy.url) as caller:
        caller.sendall(GET)
        held.wait()
        assert call(f"{proxy.admin_url}/quitquitquit", "POST")[0] == 200
        proxy.wait_for("draining", in_flight=1)
        proxy.process.send_signal(signal.SIGTERM)
        assert call(f"{proxy.admin_url}/quitquitquit", "POST")[0] == 200, "a second one changes nothing"
        held.respond()
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.wait() == 0


# --- signals at the start --------------------------------------------------------------------------

# From the start of the interpreter to a served request, with a loaded machine in mind.
INSTANTS_S = (0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)


@contextlib.contextmanager
def _blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Blocks signals in this thread. A child inherits the blocking, as it does from `env --block-signal`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    "command", [["serve", "--sandbox"], ["sandbox"], ["check", "--upstream", "http://[::1]:9"]]
)
def test_a_blocked_signal_at_the_start_is_not_lost(command: list[str]) -> None:
    """The image starts the program that way: the kernel drops a signal to process 1 that has no handler yet."""
    with _blocked(*STOPS):
        process = subprocess.Popen(
            [*COMMAND, *command], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        process.send_signal(signal.SIGTERM)
    assert process.wait(END_S) == 128 + signal.SIGTERM


@pytest.mark.parametrize("instant_s", INSTANTS_S)
def test_sigterm_at_any_instant_of_the_start_ends_with_0_or_143(instant_s: float) -> None:
    arguments = ["serve", "--sandbox", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with _blocked(*STOPS), running(arguments, environment()) as proxy:
        time.sleep(instant_s)
        assert proxy.end(signal.SIGTERM) in (0, 128 + signal.SIGTERM)
        assert b"Traceback" not in proxy.stderr


# --- a log that cannot be written ------------------------------------------------------------------


def test_a_full_disk_of_the_log_is_an_alert_and_no_failure(call: Call) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with sandbox() as upstream, Path("/dev/full").open("wb") as full:
        command = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", admin, "--upstream", upstream]
        env = environment(NANONETS_API_KEY="sandbox-test-key")
        process = subprocess.Popen([*COMMAND, *command], env=env, stdout=full, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: any(alert["event"] == "log_not_written" for alert in _alerts(admin, call)))
            (alert,) = (alert for alert in _alerts(admin, call) if alert["event"] == "log_not_written")
            assert alert["reason"] == "standard output: no space left on device"
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, errors) == (0, b"")


def _alerts(admin: str, call: Call) -> list[dict[str, Any]]:
    try:
        alerts: list[dict[str, Any]] = call(f"http://{admin}/readyz")[2]["alerts"]
    except (OSError, KeyError):  # the process starts
        return []
    return alerts
