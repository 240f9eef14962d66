"""`nanonets-proxy status` against a real proxy, and without one: its output and its exit codes."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from nanonets_proxy.cli import admin_client, status
from nanonets_proxy.core.net.addresses import TcpListener
from support.commands.process import COMMAND, END_S, Running, completed, environment, proxy_to, sandbox
from support.telemetry.status_page import adapter

OK, FAILED = 0, 1


def _get(proxy: Running, path: str) -> int:
    connection = HTTPConnection(proxy.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def _admin(proxy: Running) -> str:
    return proxy.admin_url.removeprefix("http://")


def test_the_status_is_readable_in_a_pipe(tmp_path: Path) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        assert (_get(proxy, "/api/v4/workflows"), _get(proxy, "/api/v4/missing")) == (200, 404)
        done = completed(["status", "--admin-listen", _admin(proxy)], environment(), tmp_path)
    assert (done.returncode, done.stderr) == (OK, "")
    title, empty, sentence, *lines = done.stdout.splitlines()
    assert title.startswith("nanonets-proxy ")
    assert (empty, sentence) == ("", "Ready: no request is in flight or waits.")
    assert f"upstream     {upstream}, 1 idle" in lines
    assert any(
        re.fullmatch(r"last hour    1 served, 1 4xx, 0 429, 0 5xx, 0 caller gone; now .*", line) for line in lines
    )
    assert any(line.startswith("  upstream_404: Nanonets has no such resource") for line in lines)
    assert "\x1b" not in done.stdout


def test_json_is_the_whole_document(tmp_path: Path) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        done = completed(["status", "--json", "--admin-listen", _admin(proxy)], environment(), tmp_path)
    assert done.returncode == OK
    assert adapter().validate_json(done.stdout, strict=True).state.code == "idle"


def test_the_status_works_over_a_unix_socket(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/admin.sock"
    with sandbox() as upstream, proxy_to(upstream, "--admin-listen", path):
        done = completed(["status", "--admin-listen", path], environment(), tmp_path)
    assert (done.returncode, done.stderr) == (OK, "")
    assert "Ready: no request is in flight or waits." in done.stdout


def test_on_a_terminal_the_state_has_a_colour_unless_no_color_is_set(tmp_path: Path) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        shown = {}
        for env in ({}, {"NO_COLOR": "1"}):
            parent, child = pty.openpty()
            done = subprocess.Popen(
                [*COMMAND, "status", "--admin-listen", _admin(proxy)],
                env=environment(**env),
                stdout=child,
                cwd=tmp_path,
            )
            os.close(child)
            shown[len(env)] = _read_terminal(parent)
            assert done.wait(END_S) == OK
    assert "\x1b[1;32mReady: no request is in flight or waits.\x1b[0m" in shown[0]
    assert "\x1b" not in shown[1]


def _read_terminal(parent: int) -> str:
    """Reads until the other side of the terminal is closed, which Linux reports as an error."""
    pieces = []
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(parent)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("command", [["status"], ["status", "--json"]])
def test_without_a_proxy_there_is_one_clear_sentence(command: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening, so that no other process takes the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = completed([*command, "--admin-listen", address], environment(), tmp_path)
    sentence = f"nanonets-proxy: no status: no response from {address}: connection refused\n"
    assert (done.returncode, done.stdout, done.stderr) == (FAILED, "", sentence)


@contextmanager
def _server(response: bytes) -> Iterator[str]:
    """Yields the address of a server that is no proxy. It sends this response to one request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def respond() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(response)
            connection.close()

        thread = threading.Thread(target=respond)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "has no /status: it is another program, or an older",
        ),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "responds with 500 Oh"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "sends another document: are both of the same version?",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
            "sends another document: are both of the same version?",
        ),
        (b"what?\r\n\r\n", "does not speak HTTP"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_another_server_is_named(flags: list[str], response: bytes, sentence: str, tmp_path: Path) -> None:
    with _server(response) as address:
        done = completed(["status", *flags, "--admin-listen", address], environment(), tmp_path)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert f"no status: the server on {address} {sentence}" in done.stderr


def test_a_server_that_sends_its_response_too_slowly_is_no_proxy() -> None:
    enough = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        with contextlib.suppress(OSError):  # the client has gone
            while not enough.wait(0.01):
                connection.sendall(b"x")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        with pytest.raises(admin_client.NoResponse, match="timed out"):
            admin_client._send(TcpListener("127.0.0.1", server.getsockname()[1]), "GET", "/status", 0.5)
        enough.set()
        thread.join()


def test_a_watch_ends_quietly_when_nobody_reads_on(tmp_path: Path) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        command = [*COMMAND, "status", "--watch", "--admin-listen", _admin(proxy)]
        with subprocess.Popen(
            command, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            assert watching.stderr is not None
            assert "Ready" in watching.stdout.readline()
            watching.stdout.close()
            assert watching.wait(END_S) == 128 + signal.SIGPIPE  # the state did not change meanwhile
            assert watching.stderr.read() == ""


@pytest.mark.parametrize("command", ["reload", "restart"])
def test_another_server_does_not_count_as_changed(command: str, tmp_path: Path) -> None:
    with _server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as address:
        done = completed([command, "--admin-listen", address], environment(), tmp_path)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr == f"nanonets-proxy: not {command}ed: 200 {{}}\n"


def test_a_listener_that_wants_a_token_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_client, "_send", lambda *_: (401, b"", "Unauthorized"))
    with pytest.raises(
        admin_client.NoResponse, match="wants a token: let the first address of admin_listen be loop"
    ):
        admin_client.read_status(TcpListener("10.1.0.5", 8081))


class _Ended(Exception):
    """The test has seen enough."""


def _watch(
    address: str, pauses: list[object], monkeypatch: pytest.MonkeyPatch, *, as_json: bool, terminal: bool = False
) -> str:
    """Returns the output of a watch that lasts as many readings as there are `pauses`, which it calls."""
    written: list[str] = []
    monkeypatch.setattr(status, "write", written.append)
    monkeypatch.setattr(status, "_is_terminal", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    remaining = iter(pauses)

    def pause(_: float) -> None:
        action = next(remaining, None)
        if action is None:
            raise _Ended
        action()

    host, _, port = address.rpartition(":")
    with pytest.raises(_Ended):
        status.watch(TcpListener(host, int(port)), as_json=as_json, pause=pause)
    return "".join(written)


def test_a_watch_in_a_pipe_has_a_line_for_each_change_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        pauses = [lambda: None, lambda: None, proxy.end, lambda: None]
        lines = _watch(_admin(proxy), pauses, monkeypatch, as_json=False).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Z Ready: no request is in flight or waits.")
    assert lines[1].startswith("no status: no response from ")
    assert lines[1].endswith("; trying again")


def test_a_watch_on_a_terminal_redraws_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        text = _watch(_admin(proxy), [lambda: None, proxy.end], monkeypatch, as_json=False, terminal=True)
    screens = text.split("\x1b[H\x1b[2J")[1:]
    assert ["Ready: no request" in screen for screen in screens] == [True, True, False]
    assert screens[2].endswith("; trying again\n")


def test_a_watch_as_json_has_one_document_per_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sandbox() as upstream, proxy_to(upstream) as proxy:
        text = _watch(_admin(proxy), [lambda: None, proxy.end], monkeypatch, as_json=True)
    assert [json.loads(line)["schema_version"] for line in text.splitlines()] == [1, 1]
    assert "trying again" in capsys.readouterr().err
    assert sys.stdout is not None
