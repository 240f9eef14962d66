"""The child process that reads the settings: its result, its failures, and signals during its work."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from support.certificates import CertificateAuthority
from support.commands.proc import Witness, shown_to_its_user
from support.commands.process import ANY_PORTS, Running, environment, proxy_to, running, sandbox
from support.raw_caller import RawCaller, request

Call = Callable[..., tuple[int, dict[str, str], Any]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs proc(5)")


def _children(pid: int) -> list[int]:
    """Returns the children of the main thread, the only thread that forks."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_gone(pid: int) -> bool:
    """Returns whether the process has ended and was reaped. A zombie keeps its entry."""
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[tuple[Running, int]]:
    """Yields a command, and the number of its child, which waits for a settings file that never ends."""
    file = tmp_path / "settings.toml"
    os.mkfifo(file)
    with (
        running(
            ["serve", "--config", str(file)], environment(NANONETS_API_KEY="the-key"), is_forked=True
        ) as command,
        file.open("w"),  # returns when the child opens the file
    ):
        yield command, _children(command.process.pid)[0]


@pytest.mark.parametrize("command", [["serve"], ["serve", "--sandbox"], ["sandbox"]])
def test_the_serving_process_has_no_settings_code_in_memory_and_no_child(
    command: list[str], tmp_path: Path
) -> None:
    witness = Witness.in_folder(tmp_path)
    listen = ANY_PORTS if command[0] == "serve" else ANY_PORTS[:2]
    env = environment(NANONETS_API_KEY="the-key", PYTHONPATH=witness.python_path)
    with running([*command, *listen], env) as child:
        child.wait_for("sandbox_started" if command == ["sandbox"] else "started")
        assert _children(child.process.pid) == []
        assert child.end() == 0
    modules = witness.modules(child.process.pid)
    assert "nanonets_proxy.process.serve" in modules
    assert not {"pydantic", "pydantic_core", "pydantic_settings", "nanonets_proxy.settings", "rich"} & modules


def test_the_reading_process_leaves_no_core_dump(reading: tuple[Running, int]) -> None:
    _, reader = reading
    (core,) = [line for line in Path(f"/proc/{reader}/limits").read_text().splitlines() if "core" in line]
    assert core.split()[4:6] == ["0", "0"]
    assert Path(f"/proc/{reader}/mem").stat().st_uid == 0, "proc(5): root owns what is not dumpable"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_during_reading_ends_both_processes_silently(
    number: signal.Signals, reading: tuple[Running, int]
) -> None:
    command, reader = reading
    assert command.end(number) == 128 + number
    assert _is_gone(reader)
    assert (command.stdout, command.stderr) == (b"", b"")


def test_ctrl_c_leaves_no_traceback_of_the_child(reading: tuple[Running, int]) -> None:
    command, reader = reading
    os.kill(reader, signal.SIGINT)  # Ctrl+C sends it to both processes
    assert command.wait() == 128 + signal.SIGINT
    assert b"Traceback" not in command.stderr


def test_a_killed_reading_process_is_one_sentence_and_the_signals_exit_code(
    reading: tuple[Running, int],
) -> None:
    command, reader = reading
    os.kill(reader, signal.SIGKILL)
    assert command.wait() == 128 + signal.SIGKILL
    assert command.stderr == b"nanonets-proxy: signal 9 (Killed) ended the process that read the settings\n"


def test_each_settings_fault_is_reported_once_with_exit_code_2() -> None:
    with running(["serve", "--max-wait", "soon", "--retries", "many"], environment(), is_forked=True) as command:
        assert command.wait() == 2
    lines = bytes(command.stderr).decode().splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["max_wait", "retries"]
    assert command.stdout == b""


def test_the_serving_process_reads_the_settings_itself_if_fork_fails(call: Call, tmp_path: Path) -> None:
    (usual := tmp_path / "usual").mkdir()
    (alone := tmp_path / "alone").mkdir()
    forking = Witness.in_folder(usual)
    unable = Witness.in_folder(
        alone,
        "import errno\n"
        "def fork():\n"
        "    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        "os.fork = fork\n",
    )
    with (
        sandbox() as upstream,
        proxy_to(upstream, PYTHONPATH=unable.python_path, is_forked=False) as first,
        proxy_to(upstream, PYTHONPATH=forking.python_path, is_forked=False) as second,
    ):
        assert call(f"{first.url}/api/v4/workflows")[0] == 200
        assert (first.end(), second.end()) == (0, 0)
    assert "pydantic" in unable.modules(first.process.pid)
    assert unable.pipes(first.process.pid) == forking.pipes(second.process.pid), "an end of the pipe is left open"


def test_the_proxy_starts_under_a_supervisor_that_ignores_sigchld(call: Call) -> None:
    with sandbox() as upstream:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # survives exec, and makes the kernel reap the child
        try:
            with proxy_to(upstream, is_forked=False) as proxy:
                signal.signal(signal.SIGCHLD, before)
                assert call(f"{proxy.url}/api/v4/workflows")[0] == 200
        finally:
            signal.signal(signal.SIGCHLD, before)


def test_a_configuration_larger_than_a_pipes_buffer_arrives_whole(tmp_path: Path) -> None:
    tokens = [make_token(n.to_bytes(TOKEN_BYTES)) for n in range(2000)]
    lines = [str(CallerToken.of(f"caller{n}", token)) for n, token in enumerate(tokens)]
    file = tmp_path / "settings.toml"
    file.write_text(f"caller_tokens = {lines!r}\n")
    with sandbox() as upstream, proxy_to(upstream, "--config", str(file)) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        for token in (tokens[0], tokens[-1]):
            with socket.create_connection((host, int(port)), timeout=60) as caller:
                head = f"GET /api/v4/workflows HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
                caller.sendall(head.encode())
                assert caller.recv(12) == b"HTTP/1.1 200"


def test_a_secret_setting_reaches_the_server_and_is_visible_nowhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as egress:
        egress.settimeout(60)
        address = f"127.0.0.1:{egress.getsockname()[1]}"
        url = f"http://user:egress-password@{address}"
        with proxy_to(
            "https://api.example.com", "--retries", "0", NANONETS_PROXY_EGRESS_PROXY=url, is_forked=False
        ) as proxy:
            shown = shown_to_its_user(proxy.process.pid)
            host, port = proxy.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=60) as caller:
                caller.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                tunnel, _ = egress.accept()
                with tunnel:
                    connect_head = tunnel.recv(65536)
            assert proxy.end() == 0
    assert b"Proxy-Authorization: Basic " + b64encode(b"user:egress-password") in connect_head
    assert b"egress-password" not in shown + proxy.stdout + proxy.stderr


async def test_the_systems_certificate_authorities_verify_the_upstream(tmp_path: Path) -> None:
    """The authorities are hidden only from aiohttp's client, while it is imported."""
    authority = CertificateAuthority(tmp_path)

    async def response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(response, "127.0.0.1", 0, ssl=authority.server())
    async with server:
        port = server.sockets[0].getsockname()[1]
        with proxy_to(f"https://127.0.0.1:{port}", SSL_CERT_FILE=str(authority.file), is_forked=False) as proxy:
            async with await RawCaller.connect(proxy.url.removeprefix("http://")) as caller:
                await caller.send(request(b"GET", b"/x"))
                assert (await caller.response()).status == 200
            server.close()
