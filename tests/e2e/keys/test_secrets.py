"""No key is visible in logs, metrics, admin responses, tracebacks, the command line or a core dump.

The tests put keys into places that could end up in an output: an upstream's echo in an error, callers' paths and
headers, invalid settings, and the output of a key command.
"""

import base64
import http.server
import json
import socket
import stat
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.commands.ports import free_port
from support.commands.proc import shown_to_its_user
from support.commands.process import ANY_PORTS, completed, environment, running

Call = Callable[..., tuple[int, dict[str, str], Any]]
FIRST, SECOND, WRONG = 'first"key\\of-9d2f', "second-key-of-71c4", "wrong-key-of-e0b6"


def forms(key: str) -> Iterator[bytes]:
    yield key.encode()
    yield json.dumps(key)[1:-1].encode()
    yield urllib.parse.quote(key, safe="").encode()
    yield base64.b64encode(key.encode())[:16]
    yield base64.b64encode(f"{key}:".encode()).rstrip(b"=")


def assert_hidden(shown: bytes, *keys: str) -> None:
    for key in keys:
        for form in forms(key):
            assert form not in shown


class _Echo(http.server.BaseHTTPRequestHandler):
    """Accepts FIRST and SECOND. Echoes each request's head. Breaks the response off if the path says so."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        user = base64.b64decode(self.headers["Authorization"].split()[1]).decode().rstrip(":")
        body = json.dumps({"key": user, "head": str(self.headers), "path": self.path}).encode()
        self.send_response(200 if user in (FIRST, SECOND) else 401, f"with {user}")
        self.send_header("X-Echo", user)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "broken" in self.path:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def echo() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_rotated_keys_are_visible_nowhere(call: Call, tmp_path: Path, log_format: str) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(FIRST)
    settings = ["serve", "--listen", f"unix:{tmp_path / 's'}", "--admin-listen", f"127.0.0.1:{free_port()}"]
    settings += ["--api-key-file", str(key_file), "--log-format", log_format, "--log-level", "debug"]
    settings += ["--caller-header", "X-Caller"]
    with echo() as upstream, running([*settings, "--upstream", upstream], environment()) as proxy:
        admin = f"http://{settings[4]}"
        wait_until_ready(call, admin)
        shown = b""

        def show(method: str, path: str) -> int:
            nonlocal shown
            status, fields, body = call(f"{admin}{path}", method)
            shown += repr(fields).encode() + (body if isinstance(body, bytes) else json.dumps(body).encode())
            return status

        for key in (FIRST, WRONG, SECOND):
            if key != FIRST:
                key_file.write_text(key)
                assert show("POST", "/reload") == 200
            encoded = base64.b64encode(key.encode()).decode()
            for target in ("/x", f"/{urllib.parse.quote(key)}", f"/x?{encoded}", "/broken"):
                unix_get(tmp_path / "s", target, key)
            for path in ("/metrics", "/readyz", "/status", "/"):
                show("GET", path)
            if key == WRONG:  # its requests got 401s
                show("POST", "/reload")
        key_file.write_text(f"{SECOND}:colon")
        show("POST", "/reload")
        shown += shown_to_its_user(proxy.process.pid)
        limits = Path(f"/proc/{proxy.process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        assert proxy.end() == 0
    assert b"key_candidate_rejected" in proxy.stdout
    assert_hidden(bytes(proxy.stdout + proxy.stderr) + shown, FIRST, WRONG, SECOND)


def wait_until_ready(call: Call, admin: str) -> None:
    for _ in range(600):
        try:
            if call(f"{admin}/readyz")[0] == 200:
                return
        except OSError:
            threading.Event().wait(0.05)
    raise AssertionError("not ready")


def unix_get(path: Path, target: str, caller: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Caller: {caller}\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--upstream", f"https://{SECOND}@app.nanonets.com"],
        ["serve", SECOND],
        ["serve", f"--api-key={SECOND}"],
        [SECOND],
        ["check", "--key-max-age", "1ms", "--upstream", "http://127.0.0.1:1"],
    ],
)
def test_a_settings_error_shows_no_key(arguments: list[str], tmp_path: Path) -> None:
    done = completed(arguments, environment(NANONETS_API_KEY=SECOND), tmp_path)
    assert done.returncode in (1, 2)
    assert_hidden((done.stdout + done.stderr).encode(), SECOND)


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("environment", "a:colon"),
        ("environment", "not-asc\u00efi"),
        ("file", "two\nlines"),
        ("file", ""),
        ("command", "tab\there"),
    ],
)
def test_an_invalid_key_at_start_is_one_sentence_with_its_source(source: str, bad: str, tmp_path: Path) -> None:
    text = f"{SECOND}{bad}" if bad else ""
    env, arguments = environment(), ["serve", *ANY_PORTS, "--upstream", "http://127.0.0.1:1"]
    if source == "environment":
        env["NANONETS_API_KEY"], name = text, "env:NANONETS_API_KEY"
    elif source == "file":
        (tmp_path / "key").write_text(text)
        arguments, name = [*arguments, "--api-key-file", str(tmp_path / "key")], f"file:{tmp_path / 'key'}"
    else:
        program = tmp_path / "helper"
        program.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write({text.encode()!r})\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        arguments, name = [*arguments, "--api-key-command", str(program)], "command:helper"
    done = completed(arguments, env, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"nanonets-proxy: the API key of {name} ")
    assert done.stderr.count("\n") == 1
    assert_hidden((done.stdout + done.stderr).encode(), SECOND)
