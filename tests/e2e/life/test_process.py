"""The real process: signals, listener addresses and secrets."""

import base64
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.commands.process import completed, environment, proxy_to, running, sandbox

Call = Callable[..., tuple[int, dict[str, str], Any]]
KEY = 'secret"key\\of-the-test'


def test_a_second_signal_ends_the_process_at_once() -> None:
    with sandbox("--latency", "60") as upstream, proxy_to(upstream, is_forked=False) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b"nanonets_proxy_in_flight 1.0" not in _metrics(proxy.admin_url):
                pass
            proxy.process.send_signal(signal.SIGINT)
            proxy.wait_for("draining", in_flight=1)
            assert proxy.end(signal.SIGINT) == 128 + signal.SIGINT


def _metrics(admin_url: str) -> bytes:
    host, port = admin_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as admin:
        admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: admin.recv(65536), b""))


def test_a_busy_port_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        done = completed(
            ["serve", "--sandbox", "--listen", address, "--admin-listen", "off"], environment(), tmp_path
        )
    assert done.returncode == 2
    assert done.stderr == f"nanonets-proxy: listen: {address} is already in use (flag --listen)\n"


def test_a_unix_socket_is_served_and_its_file_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    with (
        sandbox() as upstream,
        running(
            ["serve", "--listen", f"unix:{path}?mode=0600", "--admin-listen", "off", "--upstream", upstream],
            environment(NANONETS_API_KEY="sandbox-test-key"),
            is_forked=True,
        ) as proxy,
    ):
        proxy.wait_for("started")
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            caller.sendall(b"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            response = b"".join(iter(lambda: caller.recv(65536), b""))
        assert response.startswith(b"HTTP/1.1 200 OK\r\n")
        assert proxy.wait_for("request")["caller"] == f"unix:uid={os.getuid()}"
        assert proxy.end() == 0
    assert not path.exists()


def test_the_key_is_not_in_logs_metrics_or_command_line(call: Call) -> None:
    quoted = KEY.replace('"', "%22").replace("\\", "%5C")
    encoded = base64.b64encode(f"{KEY}:".encode()).decode()
    with (
        sandbox(key=KEY) as upstream,
        proxy_to(upstream, "--caller-header", "X-Caller", key=KEY, is_forked=False) as proxy,
    ):
        call(f"{proxy.url}/api/v4/{quoted}")
        call(f"{proxy.url}/api/v4/workflows?{encoded}")
        call(f"{proxy.url}/api/v4/workflows", X_Caller=KEY)
        metrics = _metrics(proxy.admin_url)
        command_line = Path(f"/proc/{proxy.process.pid}/cmdline").read_bytes()
        assert proxy.end() == 0
        assert len(proxy.requests()) == 3
    shown = proxy.stdout + proxy.stderr + metrics + command_line
    for form in (
        KEY.encode(),
        KEY.replace('"', '\\"').encode(),
        quoted.encode(),
        base64.b64encode(KEY.encode())[:16],
    ):
        assert form not in shown
