"""The directory of jobs: who may read it, the runners that use it, and the files of large bodies.

jobs.db               the database, with its companions -wal and -shm
ID.request ID.response  a body of more than `INLINE_BYTES`
RUNNER.lock           locked while the runner lives; a free lock tells that the runner has ended
"""

import errno
import fcntl
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nanonets_proxy.jobs.policy import JobsUnusable
from nanonets_proxy.jobs.records import INLINE_BYTES, Content

_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OF_OTHERS: Final = 0o077
_BODY: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(?:request|response)")
_OWN: Final = re.compile(rf"jobs\.db.*|{_BODY.pattern}|[0-9a-f]{{16}}\.lock")


class JobDirectory:
    """The directory of one environment's jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runner = secrets.token_hex(8)
        """The name of this process's runner."""
        self._lock = -1

    def open(self) -> None:
        """Makes the directory if it is missing, and locks this runner's file. Raises JobsUnusable."""
        with self._faults():
            self._make()
            self._check(os.geteuid())
            if stat.S_IMODE(self.path.stat().st_mode) & _OF_OTHERS:
                self.path.chmod(_DIR_MODE)
            self._lock = os.open(self._lock_file(self.runner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def inspect(self) -> int:
        """Returns the free bytes of the disk, and changes nothing. Raises JobsUnusable if `open` would."""
        with self._faults():
            place = self.path if self.path.exists() else self.path.parent  # `open` makes the directory
            if place == self.path:
                # Root may check what another user will run.
                self._check(os.geteuid() or self.path.stat().st_uid)
            elif not stat.S_ISDIR(place.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return shutil.disk_usage(place).free

    def free_bytes(self) -> float:
        """Returns how much of the disk is free; infinite if its filesystem does not tell. Raises OSError."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize if disk.f_blocks else math.inf

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except NotADirectoryError:
            place = self.path if self.path.exists() else self.path.parent
            raise JobsUnusable(f"jobs: {place} is not a directory") from None
        except FileNotFoundError:  # the proxy makes the directory itself, but not the path to it
            raise JobsUnusable(f"jobs: {self.path} cannot be made: {self.path.parent} does not exist") from None
        except OSError as error:
            fault = (error.strerror or "unknown fault").lower()
            raise JobsUnusable(f"jobs: {self.path} cannot be used: {fault}") from None

    def _check(self, user: int) -> None:
        """Raises JobsUnusable, or OSError, if the directory is not the user's own, and for jobs alone."""
        status = self.path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if status.st_uid != user:
            raise JobsUnusable(f"jobs: {self.path} must belong to the user that runs the proxy")
        if not stat.S_IMODE(status.st_mode) & _OF_OTHERS:
            return
        # `open` takes others' permissions away: it holds callers' documents. /tmp must stay as it is.
        with os.scandir(self.path) as entries:
            other = next((entry.name for entry in entries if not _OWN.fullmatch(entry.name)), None)
        if other is not None:
            raise JobsUnusable(
                f"jobs: {self.path} has files of others, such as {other}, and is open to other users: "
                "name a directory for the jobs alone"
            )

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=_DIR_MODE)
        except FileExistsError:
            return
        parent = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)  # a power cut must not take the name of the directory, and all jobs with it
        finally:
            os.close(parent)

    def close(self) -> None:
        """Unlocks this runner's file, and removes it."""
        if self._lock >= 0:
            remove(self._lock_file(self.runner))
            os.close(self._lock)
            self._lock = -1

    @property
    def database(self) -> Path:
        return self.path / "jobs.db"

    def request_body(self, job_id: str) -> "BodyFile":
        return BodyFile(self.path, f"{job_id}.request")

    def response_body(self, job_id: str) -> "BodyFile":
        return BodyFile(self.path, f"{job_id}.response")

    def remove_files(self, job_id: str) -> None:
        """Removes the bodies of a job that no longer needs them."""
        remove(self.request_body(job_id).path)
        remove(self.response_body(job_id).path)

    def abandoned(self, before_s: float) -> Iterator[str]:
        """Yields the ids of bodies that were not written since then. A job may have them, or a crash left them."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                match = _BODY.fullmatch(entry.name)
                with suppress(FileNotFoundError):  # its job has just ended
                    if match is not None and entry.stat().st_mtime < before_s:
                        yield match[1]

    def has_ended(self, runner: str) -> bool:
        """Returns whether another runner has ended. Each runner locks its file for as long as it lives."""
        try:
            descriptor = os.open(self._lock_file(runner), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, runner: str) -> None:
        """Removes the lock file of a runner that has ended and has no jobs any more."""
        remove(self._lock_file(runner))

    def _lock_file(self, runner: str) -> Path:
        return self.path / f"{runner}.lock"


def remove(file: Path) -> None:
    """Removes a file, if that is possible. No job depends on it, and the hourly search finds a body that stays."""
    with suppress(OSError):
        file.unlink(missing_ok=True)


class BodyFile:
    """Collects a body: in memory up to `INLINE_BYTES`, then in a file that is readable by its owner only."""

    __slots__ = ("_descriptor", "_folder", "_memory", "_name", "length")

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.length = 0
        self._memory = bytearray()
        self._descriptor = -1

    @property
    def path(self) -> Path:
        """The file, which exists only if the body is large. Most are not, so the path is made on need."""
        return self._folder / self._name

    @property
    def memory_bytes(self) -> int:
        """The part of the body that is in memory."""
        return len(self._memory)

    def write(self, piece: bytes) -> None:
        """Adds bytes. Raises OSError."""
        self.length += len(piece)
        if self._descriptor < 0:
            self._memory += piece
            if len(self._memory) <= INLINE_BYTES:
                return
            path = self.path
            remove(path)  # of an earlier attempt
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, _FILE_MODE)
            piece, self._memory = bytes(self._memory), bytearray()
        view = memoryview(piece)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> Content:
        """Ends the body."""
        if self._descriptor < 0:
            return Content(self.length, bytes(self._memory))
        os.close(self._descriptor)
        self._descriptor = -1
        return Content(self.length, None)

    def discard(self) -> None:
        """Ends the body, if it has not ended, and removes its file."""
        if self.length > INLINE_BYTES:
            if self._descriptor >= 0:
                self.close()
            remove(self.path)
