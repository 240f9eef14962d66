"""Runs the command in a fork of a server process that has imported the program already.

A new interpreter spends a second of CPU time on imports, and a fork a fiftieth of that. Only the start differs:
`/proc/PID/environ` and `/proc/PID/cmdline` are those of the server process, and the memory is shared with it.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, Final

import nanonets_proxy

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["nanonets_proxy.cli.commands", "nanonets_proxy.process.serve", "nanonets_proxy.sandbox.app"]
)


class ForkedCommand:
    """The part of `subprocess.Popen` that `Running` uses."""

    stdout: BinaryIO
    stderr: BinaryIO

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        stdout, child_stdout = _FORKS.Pipe(duplex=False)
        stderr, child_stderr = _FORKS.Pipe(duplex=False)
        start = _Start(arguments, dict(env), folder, resource.getrlimit(resource.RLIMIT_NOFILE))
        self._process = _FORKS.Process(target=_run, args=(start, child_stdout, child_stderr))
        with child_stdout, child_stderr, stdout, stderr:
            self._process.start()
            self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno()), "rb") for end in (stdout, stderr))
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("nanonets-proxy", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


@dataclass(frozen=True)
class _Start:
    """The command, and what a child process would inherit from the process that starts it."""

    arguments: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    open_files: tuple[int, int]


def _run(start: _Start, stdout: Connection, stderr: Connection) -> None:
    from nanonets_proxy.cli.main import main

    # A restart repeats this command line.
    sys.orig_argv = [sys.executable, "-m", "nanonets_proxy", *start.arguments]
    sys.argv = [str(Path(nanonets_proxy.__file__).with_name("__main__.py")), *start.arguments]
    os.environ.clear()
    os.environ.update(start.env)
    os.chdir(start.folder)
    resource.setrlimit(resource.RLIMIT_NOFILE, start.open_files)
    for end, stream in (stdout, sys.stdout), (stderr, sys.stderr):
        os.dup2(end.fileno(), stream.fileno())
        end.close()
    sys.exit(main(start.arguments))
