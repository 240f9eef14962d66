"""Raises the limit of open files, and makes sure that a server can open those that it needs to start."""

import contextlib
import os
import resource
from typing import Final

from nanonets_proxy.core.status.error_advice import RAISE_OPEN_FILES

_PIPES: Final = 12  # of two files each: for the event loop, listeners, watches, pipes, and the modules of Python


def lack_of_files() -> str:
    """Raises the limit of open files. Returns why a server cannot start, in one sentence; "" if it can.

    Each waiting caller is an open file. The usual soft limit of 1,024 exists for select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as files:
        try:
            for _ in range(_PIPES):
                for file in os.pipe():
                    files.callback(os.close, file)
        except OSError as error:
            return f"too few files can be opened ({error.strerror}), the limit is {hard}: {RAISE_OPEN_FILES}"
    return ""
