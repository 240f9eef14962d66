"""A child process that reads the settings at start, and sends the configuration to the serving process.

The settings code takes a fifth of a serving process's memory and is seldom needed. The system takes that memory
back when the child ends, and the two processes import their modules at the same time. The configuration goes
through a pipe, because it holds secrets. The child reports errors itself; its exit code then becomes the program's.
"""

import contextlib
import gc
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from nanonets_proxy.process.exit_codes import FAILED, SIGNAL_BASE
from nanonets_proxy.process.hardening import lock_memory, prevent_core_dump

if TYPE_CHECKING:
    from nanonets_proxy.app.config import Config

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)

ReadInChild: TypeAlias = Callable[[Callable[["Config"], int]], int]
"""Reads the settings, passes the configuration to its argument, and returns the exit code."""


class SettingsReader:
    """The child process. While it runs, SIGTERM and SIGINT end both processes at once."""

    def __init__(self, read: ReadInChild) -> None:
        """Starts the child, which runs `read`. The process must have no other thread.

        Raises:
            OSError: the system allows no further process.
        """
        prevent_core_dump()  # the child inherits it
        # Some supervisors start programs with SIGCHLD ignored. The system then discards the child's exit code.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _flush()
        self._pipe, child_pipe = os.pipe()
        # Blocks the signals until both processes have set their handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            self._pid = os.fork()
            if not self._pid:
                os.close(self._pipe)
                _run_child(read, child_pipe, mask)
            for number in _STOPS:
                signal.signal(number, self._stop)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(child_pipe)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def config(self) -> "Config | int":
        """Waits for the child. Returns its configuration, or the exit code if there is nothing to serve."""
        with os.fdopen(self._pipe, "rb") as pipe:
            sent = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        if code < 0:
            name = signal.strsignal(-code)
            sys.stderr.write(f"nanonets-proxy: signal {-code} ({name}) ended the process that read the settings\n")
            return SIGNAL_BASE - code
        if code or not sent:
            return code
        config: Config = pickle.loads(sent)  # noqa: S301  # only the child writes to the pipe
        return config

    def _stop(self, number: int, _: FrameType | None) -> NoReturn:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the child has already ended
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        os._exit(SIGNAL_BASE + number)


def _run_child(read: ReadInChild, pipe: int, mask: set[int | signal.Signals]) -> NoReturn:
    """Runs `read` and ends the child process. It never returns, because only the parent may continue `main`."""

    def send(config: "Config") -> int:
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(config, file)
        return 0

    code = FAILED
    try:
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        lock_memory()
        gc.disable()  # a collection would copy pages that the child shares with its parent
        code = read(send)
        _flush()
    except BrokenPipeError:
        pass  # the parent has ended
    except BaseException:  # noqa: BLE001  # reports as the interpreter does
        traceback.print_exc()
    finally:
        os._exit(code)


def _flush() -> None:
    """Writes the buffered output; after a fork, both processes would write it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if the descriptor was closed at start
            stream.flush()
