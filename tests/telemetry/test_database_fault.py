"""Each fault of a SQLite file has the advice that mends it."""

import errno
import os
import sqlite3

import pytest

from nanonets_proxy.telemetry.database_fault import fault_of

_WRITABLE = "name a file that the proxy may write, or make this one writable"
_ROOM = "make room on the file's disk"
_SYSTEM_LOG = "look for the cause in the system's log, such as a failing disk"
_FILES = "raise the limit of open files: "


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        *((number, _WRITABLE) for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOENT)),
        *((number, _WRITABLE) for number in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)),
        *((number, _ROOM) for number in (errno.ENOSPC, errno.EDQUOT)),
        *((number, _FILES) for number in (errno.EMFILE, errno.ENFILE)),
        *((number, _SYSTEM_LOG) for number in (errno.EIO, errno.ENOMEM, errno.EBUSY)),
    ],
)
def test_an_error_of_the_system_has_its_cure(number: int, cure: str) -> None:
    assert fault_of(OSError(number, os.strerror(number))).cure.startswith(cure)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        *((code, _WRITABLE) for code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)),
        *((code, _ROOM) for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)),
        *((code, _SYSTEM_LOG) for code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_ERROR)),
        (sqlite3.SQLITE_BUSY, "find the process that has the file open"),
        (sqlite3.SQLITE_NOTADB, "move the file away"),
    ],
)
def test_an_error_of_sqlite_has_its_cure(code: int, cure: str) -> None:
    error = sqlite3.OperationalError("failed")
    error.sqlite_errorcode = code
    assert fault_of(error).cure == cure
