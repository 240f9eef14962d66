"""Starts a process that later belongs to the service manager instead of this process.

A launcher, a small Python process, starts the program and waits for it. While the launcher lives, it passes on the
program's exit code. After its end, the kernel gives the program to the next process above that adopts orphans
(PR_SET_CHILD_SUBREAPER in prctl(2)): systemd, or process 1. A main process that is not systemd's own child is
supervised less well: in a container with legacy control groups, systemd kills it without waiting for its drain.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Final

from nanonets_proxy.process.successor.messages import PeerLost

_END_S: Final = 5.0

# Arguments: the file for the program's number, the file that only the program keeps, its command line.
# A shell exits with 127 if it finds no command, and with 128 + number after a signal.
_LAUNCHER: Final = """
import os, sys
report, kept, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
pid = os.fork()
if not pid:
    os.close(report)
    try:
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\\n".encode())
    os._exit(127)
os.close(kept)
os.write(report, str(pid).encode())
os.close(report)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
os._exit(code if code >= 0 else 128 - code)
"""


class Launched:
    """A started program. Call `end`, `kill` or `let_go`."""

    def __init__(self, launcher: "subprocess.Popen[bytes]", pid: int) -> None:
        assert launcher.stderr is not None
        self._launcher = launcher
        self.pid = pid
        self.stderr: IO[bytes] = launcher.stderr
        """The standard error of the program."""

    def end(self) -> int:
        """Waits a moment for the end of the program, then kills it, and returns its exit code."""
        try:
            return self._launcher.wait(_END_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kills the program unless it has ended, and returns its exit code. Blocks for some milliseconds."""
        # The launcher has not collected the program's exit code, so the number is still the program's.
        if self._launcher.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self._launcher.wait()

    def let_go(self) -> None:
        """Ends the launcher: the program is no longer a descendant of this process."""
        self._launcher.kill()
        self._launcher.wait()


def launch(command: Sequence[str], env: Mapping[str, str], kept: int) -> Launched:
    """Starts a program with the open file `kept`. Blocks for some milliseconds; raises OSError or PeerLost."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as report:
        try:
            launcher = subprocess.Popen(  # noqa: S603  # the command line of this process
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writing), str(kept), *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[writing, kept],
            )
        finally:
            os.close(writing)
        number = report.read()
    if not number:
        raise PeerLost(f"its launcher ended with code {launcher.wait()}")
    return Launched(launcher, int(number))
