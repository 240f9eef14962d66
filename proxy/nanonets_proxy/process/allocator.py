"""Tunes the C library's allocator for request and response bodies."""

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
# 32 bodies of 64 KiB, with up to three copies of each, rounded up.
_KEPT_BYTES: Final = 8 * 1024 * 1024
_MAPPED_FROM_BYTES: Final = 1024 * 1024


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory at the end of the heap. Does nothing with other C libraries.

    By default glibc returns more than 128 KiB of freed memory to the system. Taking it again for each body costs a
    page fault per page, and more if all memory is locked. Once a program sets one threshold, glibc keeps the other
    as it is (mallopt(3)), and would map each buffer of a read separately. So this function sets both.

    By default glibc also reserves 64 MiB of addresses for each new thread. Below a small `ulimit -v`, the threads
    of a name look-up could not start, and uvloop aborts the process then. Few threads allocate, so one arena is
    enough.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        mallopt(_M_ARENA_MAX, 1)
