"""What keeps the key inside the process: no core dump, no look into its memory, nothing left in its environment,
nothing of it on a swap disk where the system allows that. Elsewhere than on Linux only the first."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
# proc(5): fields 50 and 51 of /proc/PID/stat, counted from 1; the first two are cut off before.
_ENV_START, _ENV_END = 50 - 3, 51 - 3


def leave_no_core() -> None:
    """A core dump has the keys in it. A handler that the kernel pipes cores to is not bound by the limit of size;
    a process that is not dumpable has none (core(5), prctl(2)), and its memory is closed to others of its user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def stay_in_memory() -> bool:
    """Keeps all memory of the process off swap disks; False where the system does not allow it without a limit.

    With a limit nothing is tried: each allocation beyond it would fail from then on (mlockall(2)).
    """
    if sys.platform != "linux" or not _may_lock_all():
        return False
    return bool(ctypes.CDLL(None).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _may_lock_all() -> bool:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    status = Path("/proc/self/status").read_text()
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def forget_variables(names: Iterable[str]) -> None:
    """Takes variables out of our own environment, which children inherit, and blanks the text that the kernel keeps
    showing of it in /proc/PID/environ."""
    gone = [name for name in names if os.environ.pop(name, None) is not None]
    if gone and sys.platform == "linux":
        _blank_initial(gone)


def _blank_initial(names: Iterable[str]) -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    if not start:
        return  # a kernel that tells it to nobody
    block = ctypes.string_at(start, end - start)
    position = 0
    prefixes = tuple(f"{name}=".encode() for name in names)
    for entry in block.split(b"\0"):
        if entry.startswith(prefixes):
            value_at = entry.index(b"=") + 1
            ctypes.memset(start + position + value_at, ord("*"), len(entry) - value_at)
        position += len(entry) + 1
