"""What the C library's allocator does with the large pieces that bodies come in."""

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
# As much freed memory as 32 bodies of 64 KiB take, with three copies, stays with the process.
_KEPT_BYTES: Final = 8 * 1024 * 1024
_MAPPED_FROM_BYTES: Final = 1024 * 1024


def keep_freed_memory() -> None:
    """Has glibc keep what is freed at the heap's end, which it returns from 128 KiB on; other C libraries stay as
    they are. Memory that is taken again with each body costs a fault a page, and more where all of it is locked.

    With the one threshold set, the other no longer adjusts itself (mallopt(3)): pieces as large as a read would be
    mapped one by one.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
