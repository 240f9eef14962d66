"""The pages of a TIFF file: one for each image in its chain of directories.

A *directory* describes one image: tags, then the offset of the next directory (TIFF 6.0, section 2). BigTIFF has
the same structure with longer numbers.
"""

import struct
from typing import Final

from nanonets_proxy.core.ratelimit.scopes.page_costs import MAX_PAGES

MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF file; with `+`: of a BigTIFF file."""

_NEW_SUBFILE_TYPE: Final = 254
_REDUCED: Final = 1  # this bit marks a smaller copy of another image, such as a thumbnail
_MAX_TAGS: Final = 4096  # a directory with more is not worth the time


def tiff_pages(file: memoryview) -> int | None:
    """Returns the number of pages; None if the file is damaged, endless, or has more than `MAX_PAGES`."""
    try:
        return _count(file)
    except (struct.error, OverflowError):  # an offset points beyond the end of the file
        return None


def _count(file: memoryview) -> int | None:
    start = bytes(file[:4])
    order, is_big = "<" if start.startswith(b"II") else ">", b"+" in start
    number, count_of_tags, tag_bytes = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    (directory_at,) = struct.unpack_from(order + number, file, 8 if is_big else 4)
    pages = directories = 0
    while directory_at:
        directories += 1
        (tags,) = struct.unpack_from(order + count_of_tags, file, directory_at)
        if directories > MAX_PAGES or tags > _MAX_TAGS:  # perhaps a loop
            return None
        tags_at = directory_at + struct.calcsize(order + count_of_tags)
        value_at = tag_bytes - struct.calcsize(number)
        subfile_type = 0
        for at in range(tags_at, tags_at + tags * tag_bytes, tag_bytes):
            (tag,) = struct.unpack_from(order + "H", file, at)
            if tag >= _NEW_SUBFILE_TYPE:  # tags are in ascending order
                if tag == _NEW_SUBFILE_TYPE:
                    (subfile_type,) = struct.unpack_from(order + "I", file, at + value_at)
                break
        pages += not subfile_type & _REDUCED
        (directory_at,) = struct.unpack_from(order + number, file, tags_at + tags * tag_bytes)
    return pages or None
