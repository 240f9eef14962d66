"""Waits until the file of a large body is on the disk.

That may take seconds. So it happens in threads of its own, and neither the event loop nor the writer waits for it.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from nanonets_proxy.aio.daemon_thread import NoThread, in_daemon_thread
from nanonets_proxy.jobs.store_thread import StoreFault, store_fault

MOST_AT_ONCE: Final = 4  # threads; the disk writes one file after the other anyway


class FileSync:
    """The files of one directory."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def sync(self, file: Path) -> None:
        """Returns when the file and its name survive a power cut. Raises StoreFault."""
        async with self._places:
            try:
                await in_daemon_thread(lambda: _sync(file))
            except OSError as error:
                raise store_fault(error) from None
            except NoThread as error:
                raise StoreFault(f"cannot be used: {error}") from None


def _sync(file: Path) -> None:
    for path in (file, file.parent):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
