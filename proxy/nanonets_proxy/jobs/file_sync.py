"""Waits until the file of a large body is on the disk.

That may take seconds. So it happens in threads of its own, and neither the event loop nor the writer waits for it.
"""

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from nanonets_proxy.jobs.store_thread import StoreFault, store_fault

MOST_AT_ONCE: Final = 4  # threads; the disk writes one file after the other anyway


class FileSync:
    """The files of one directory."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def sync(self, file: Path) -> None:
        """Returns when the file and its name survive a power cut. Raises StoreFault."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def resolve(error: OSError | None) -> None:
            if done.done():  # its task was cancelled
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(store_fault(error))

        def run() -> None:
            error = None
            try:
                for path in (file, file.parent):
                    _sync(path)
            except OSError as fault:
                error = fault
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolve, error)

        async with self._places:
            try:
                threading.Thread(target=run, name="jobs-sync", daemon=True).start()
            except RuntimeError as error:  # the memory or the number of threads is limited
                raise StoreFault(f"cannot be used: {error}") from None
            await done


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
