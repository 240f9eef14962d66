"""Programs that are started by a launcher."""

import socket
import sys

import pytest

from nanonets_proxy.process.successor.launch import Launched, launch

_ENV = {"PATH": "/usr/bin:/bin"}


def _launch(*command: str) -> Launched:
    kept, own = socket.socketpair()
    with kept, own:
        return launch(command, _ENV, kept.fileno())


@pytest.mark.parametrize(
    ("script", "code"),
    [("import os; os._exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_the_launcher_passes_on_the_exit_code(script: str, code: int) -> None:
    launched = _launch(sys.executable, "-I", "-S", "-c", script)
    with launched.stderr:
        assert launched.end() == code


def test_a_missing_program_is_named_on_standard_error() -> None:
    launched = _launch("/no/such/program")
    with launched.stderr:
        assert launched.stderr.read() == b"/no/such/program: No such file or directory\n"
        assert launched.end() == 127


def test_a_program_that_is_let_go_belongs_to_another_process() -> None:
    script = (
        "import os, socket, sys\n"
        "link = socket.socket(fileno=int(sys.argv[1]))\n"
        "while link.recv(1):\n"
        "    link.send(b'%d ' % os.getppid())\n"
    )
    own, kept = socket.socketpair()
    with own:
        with kept:
            command = [sys.executable, "-I", "-S", "-c", script, str(kept.fileno())]
            launched = launch(command, _ENV, kept.fileno())
        own.sendall(b"?")
        launcher = int(own.recv(16))
        launched.let_go()
        own.sendall(b"?")
        assert int(own.recv(16)) != launcher
        own.shutdown(socket.SHUT_WR)
        assert own.recv(1) == b"", "no other process has the program's file"
        assert launched.stderr.read() == b""
        launched.stderr.close()
