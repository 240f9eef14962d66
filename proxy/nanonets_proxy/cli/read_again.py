"""The process that reads the settings for a reload. `process/settings_rereader.py` starts it.

It gets the command line, the environment and the values in force on standard input, because they may hold secrets.
It writes NewSettings to standard output, or a list of sentences about the faults.
"""

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nanonets_proxy.app.reloading import NewSettings
from nanonets_proxy.process.hardening import lock_memory, prevent_core_dump
from nanonets_proxy.process.settings_rereader import TIME_LIMIT_S, Request


def main() -> None:
    """Reads one request, and writes its result."""
    _be_first_to_go()  # before the files of this process in /proc belong to root
    prevent_core_dump()
    lock_memory()
    signal.alarm(int(TIME_LIMIT_S) + 1)  # ends this process if nobody else does
    request: Request = pickle.load(sys.stdin.buffer)  # noqa: S301  # the serving process has written it
    os.environ.clear()
    os.environ.update(request.environ)
    pickle.dump(_result(request), sys.stdout.buffer)


def _result(request: Request) -> NewSettings | Sequence[str]:
    from nanonets_proxy.cli.commands import read_again  # after the hardening
    from nanonets_proxy.settings import SettingsError

    try:
        return read_again(request)
    except SettingsError as error:
        return error.problems


def _be_first_to_go() -> None:
    """Asks the kernel to end this process, and not the serving one, if memory runs out (proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
