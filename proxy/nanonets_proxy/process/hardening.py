"""Keeps the key inside the process: no core dump, no access to its memory, no copy in its environment or on swap.

On systems other than Linux, only the core dump is prevented.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
# proc(5): fields 50 and 51 of /proc/PID/stat, counted from 1; as indices of a list without the first two fields.
_ENV_START, _ENV_END = 50 - 3, 51 - 3


def prevent_core_dump() -> None:
    """Prevents core dumps, which would hold the keys, and access by other processes of the same user.

    The size limit does not apply when the kernel pipes the dump to a handler. A process that is not dumpable leaves
    no core dump at all (core(5), prctl(2)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    deny_inspection()


def deny_inspection() -> None:
    """Prevents access to this process by other processes of the same user, until it executes another program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def lock_memory() -> bool:
    """Keeps all memory of the process off swap. Returns False if the system forbids or limits that.

    Under a limit it locks nothing, because every allocation beyond the limit would fail (mlockall(2)).
    """
    if sys.platform != "linux" or not _may_lock_all():
        return False
    return bool(ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _may_lock_all() -> bool:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False  # /proc is not mounted
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def forget_variables(names: Iterable[str]) -> None:
    """Removes variables from the environment that children inherit, and masks them in /proc/PID/environ."""
    mask_variables([name for name in names if os.environ.pop(name, None) is not None])


def mask_variables(names: Collection[str]) -> None:
    """Masks variables in /proc/PID/environ. `os.environ` keeps them."""
    if names and sys.platform == "linux":
        _overwrite_initial(names)


def _overwrite_initial(names: Iterable[str]) -> None:
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return  # /proc is not mounted, so nobody sees the variables there
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    if not start:
        return  # the kernel hides the address
    block = ctypes.string_at(start, end - start)
    position = 0
    prefixes = tuple(f"{name}=".encode() for name in names)
    for entry in block.split(b"\0"):
        if entry.startswith(prefixes):
            value_at = entry.index(b"=") + 1
            ctypes.memset(start + position + value_at, ord("*"), len(entry) - value_at)
        position += len(entry) + 1
