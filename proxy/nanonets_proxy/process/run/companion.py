"""The proxy beside a command: detached from the command, and ended with it.

States:
starting  Reads the settings and the key, and reports as soon as the proxy is certain to start. The command may run
          already (`become.py`).
            the command ends -> ended
serving   Has reported that it serves, which is ignored if it has already reported that it is certain.
            the command ends -> stopping
stopping  The program stops and drains nothing: the token ends with the command.
            the program has not stopped within a few seconds -> ended
ended     Its processes are killed, or have ended by themselves.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from nanonets_proxy.process.exit_codes import FAILED, USAGE_ERROR
from nanonets_proxy.process.open_files import lack_of_files

_STOP_S: Final = 5.0
_POLL_S: Final = 0.2
_STDIN, _STDOUT, _STDERR = 0, 1, 2
# They belong to the command: systemd sends them to the main process of the unit, which the command is.
_VARIABLES_OF_COMMAND: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS")


class Companion:
    """What the proxy knows of its command. Call `follow` when nothing is left to fork, and `serving` later."""

    def __init__(
        self, listener: socket.socket, token: str, command_pid: int, pidfd: int | None, report: int
    ) -> None:
        """`listener` and `token`: for the command's requests. `report`: a pipe to the process that waits.

        `pidfd`: of the command's process; None if the system has none.
        """
        self.listener = listener
        self.hidden_variables: Sequence[str] = ()
        """Further variables that the command must not see, because they give access to the key."""
        self._token = token
        self._command_pid = command_pid
        self._pidfd = pidfd
        self._report = report
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None

    @property
    def files(self) -> set[int]:
        """The descriptors that the proxy needs."""
        return {self.listener.fileno(), self._report} | ({self._pidfd} - {None})  # type: ignore[operator]

    def take_token(self) -> str:
        """Returns the token, once in each process, which then need not keep its text."""
        token, self._token = self._token, ""
        return token

    def follow(self) -> None:
        """Ends this process with the command from now on. Starts a thread."""
        threading.Thread(target=self._follow, name="command", daemon=True).start()

    def certain(self) -> None:
        """Reports that the proxy is certain to start. A fork may call it, whose other methods then do nothing."""
        self._send({"hidden_variables": list(self.hidden_variables)})

    def serving(self, stop: Callable[[], object]) -> None:
        """Reports that the proxy serves. `stop` is called from another thread when the command has ended."""
        with self._lock:
            self._stop = stop
        self.certain()

    def ended(self, exit_code: int) -> None:
        """Reports that the proxy has ended, if it has not served."""
        if self._report >= 0:
            self._send({"exit_code": exit_code})

    def _send(self, message: object) -> None:
        import json  # imported here, as traceback below: the process of the command needs neither

        # Nobody waits if the command runs already.
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._report, "w") as pipe:
            pipe.write(f"{json.dumps(message)}\n")
        self._report = -1

    def _follow(self) -> None:
        self._wait_for_end()
        with self._lock:
            stop = self._stop
            if stop is None:
                _end_all()
        stop()
        time.sleep(_STOP_S)
        _end_all()

    def _wait_for_end(self) -> None:
        if self._pidfd is not None:
            select.select([self._pidfd], [], [])  # pidfd_open(2): readable when the process has ended
            return
        while _is_alive(self._command_pid):
            time.sleep(_POLL_S)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the command has become another user
    return True


def _end_all() -> NoReturn:
    """Kills the processes of the proxy's group: itself, and the one that reads the settings."""
    os.killpg(0, signal.SIGKILL)
    os._exit(FAILED)


def pidfd_of_this_process() -> int | None:
    """Returns a descriptor of this process that its forks can wait on; None if the system has none."""
    try:
        return os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return None


def run_detached(companion: Companion, run_proxy: Callable[[Companion], int]) -> None:
    """Runs `run_proxy` in a process of its own session, which the first process of the system adopts.

    Raises OSError if no process can be started.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(FAILED)
    code = FAILED
    try:
        _let_go_of_command(companion.files)
        if fault := lack_of_files():
            sys.stderr.write(f"nanonets-proxy: {fault}\n")
            code = USAGE_ERROR
        else:
            code = run_proxy(companion)
    except BaseException:  # noqa: BLE001 - reports as the interpreter does
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        companion.ended(code)
        os._exit(code)


def _past_last_file() -> int:
    """Returns a number above those of all open files."""
    try:
        return max(int(entry.name) for entry in Path("/dev/fd").iterdir()) + 1
    except OSError:  # /proc is not mounted, or no file can be opened to list them
        return os.sysconf("SC_OPEN_MAX")


def _let_go_of_command(kept: set[int]) -> None:
    """Gives up all that belongs to the command, except for standard error, which gets the log.

    Otherwise a reader of the command's output would wait for the proxy too.
    """
    first = _STDERR + 1
    for file in sorted(kept):
        os.closerange(first, file)
        first = file + 1
    os.closerange(first, _past_last_file())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, _STDIN)
    os.close(null)
    os.dup2(_STDERR, _STDOUT)
    for name in _VARIABLES_OF_COMMAND:
        os.environ.pop(name, None)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
