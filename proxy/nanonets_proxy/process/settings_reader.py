"""A child process that reads the settings, and how the plan that it makes of them comes over.

Both know what a plan is made of before they part, and import at the same time what each of them needs. Secrets of
the settings pass through the pipe alone. What is wrong, the child says itself; its exit code is then the program's.
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
from typing import Final, NoReturn

from nanonets_proxy.app.config import Config
from nanonets_proxy.process.exit_codes import FAILED, SIGNAL_BASE
from nanonets_proxy.process.hardening import leave_no_core, stay_in_memory

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)

Read = Callable[[Callable[[Config], int]], int]
"""Is given what sends a plan, and gives an exit code."""


class SettingsReader:
    """The child, from its start to its end. SIGTERM and SIGINT end both processes at once from now on."""

    def __init__(self, read: Read) -> None:
        """`read` is what the child does. There must not be a thread yet.

        Raises:
            OSError: the system gives no further process.
        """
        leave_no_core()  # which the child inherits
        # Ignored, as some supervisors hand it on, it would take the child's end from us.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _flush()
        self._pipe, childs_pipe = os.pipe()
        # A stop has to wait until each of the two knows what it means.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            self._pid = os.fork()
            if not self._pid:
                os.close(self._pipe)
                _be_the_child(read, childs_pipe, mask)
            for number in _STOPS:
                signal.signal(number, self._stop)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(childs_pipe)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def config(self) -> Config | int:
        """What the child has sent, or, where there is nothing to serve, the exit code. Waits for its end."""
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
        config: Config = pickle.loads(sent)  # noqa: S301 - from our own child, through a pipe that nobody else has
        return config

    def _stop(self, number: int, _: FrameType | None) -> NoReturn:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has just ended by itself
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        os._exit(SIGNAL_BASE + number)


def _be_the_child(read: Read, pipe: int, mask: set[int | signal.Signals]) -> NoReturn:
    """Never returns: what called it is the other process's to go on with."""

    def send(config: Config) -> int:
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(config, file)
        return 0

    code = FAILED
    try:
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        stay_in_memory()
        gc.disable()  # its walks would copy what is still shared, for garbage that goes with the process
        code = read(send)
        _flush()
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a process
        traceback.print_exc()
    finally:
        os._exit(code)


def _flush() -> None:
    """What is buffered when a process parts would be written by both."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is, where the descriptor was closed
            stream.flush()
