"""The pages of an upload: of a single file, or of the files in a multipart form (RFC 7578)."""

from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from mmap import mmap
from typing import Final

from nanonets_proxy.core.ratelimit.scopes.page_costs import MAX_PAGES
from nanonets_proxy.pages import tiff

FORM: Final = "multipart/form-data"

PdfPages = Callable[[memoryview], int | None]

_PDF: Final = b"%PDF-"
_PDF_WITHIN_BYTES: Final = 1024  # ISO 32000-1, annex H: readers accept other bytes before the header
_ONE_PAGE: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_MAX_HEAD_BYTES: Final = 8192  # of one part
_MAX_PARTS: Final = 256
_MAX_FORM_BYTES: Final = 16 * 1024 * 1024  # the search for the boundary takes 0.6 ms per MiB
_IDENTITY: Final = ("", "binary", "8bit", "7bit")


def upload_pages(body: mmap | bytearray, content_type: str, pdf_pages: PdfPages) -> int | None:
    """Returns the number of pages of an upload; None if it is unknown. `pdf_pages` counts those of a PDF file."""
    declared = Message()
    declared["Content-Type"] = content_type
    with memoryview(body) as view:
        if declared.get_content_type() != FORM:
            return _at_most(_file_pages(view, pdf_pages))
        boundary = declared.get_param("boundary")
        if not isinstance(boundary, str) or not boundary or len(body) > _MAX_FORM_BYTES:
            return None
        total = 0
        for start, end in _files(body, boundary.encode("latin-1", "replace")):
            with view[start:end] as file:
                pages = _file_pages(file, pdf_pages)
            if pages is None:
                return None
            total += pages
        return _at_most(total)


def _at_most(pages: int | None) -> int | None:
    return pages if pages and pages <= MAX_PAGES else None


def _file_pages(file: memoryview, pdf_pages: PdfPages) -> int | None:
    """Returns the pages of a file by its first bytes, since callers often declare a wrong type."""
    start = bytes(file[:_PDF_WITHIN_BYTES])
    if start.startswith(tiff.MAGIC):
        return tiff.tiff_pages(file)
    if start.startswith(_ONE_PAGE) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return 1
    return pdf_pages(file) if _PDF in start else None


def _files(body: mmap | bytearray, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each file in a form. An unusual file has no bytes, so its pages are unknown.

    A delimiter is CR LF, two hyphens and the boundary (RFC 2046 §5.1.1). The first one needs no CR LF.
    """
    delimiter = b"\r\n--" + boundary
    at = 0 if body[: len(delimiter) - 2] == delimiter[2:] else body.find(delimiter)
    start = at + len(delimiter) - (2 if at == 0 else 0)
    for _ in range(_MAX_PARTS):
        if at < 0 or body[start : start + 2] == b"--":  # the end of the form
            return
        end = body.find(delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_HEAD_BYTES)
        if end < 0 or head_end < 0:
            break
        head = BytesHeaderParser().parsebytes(body[start + 2 : head_end + 2])
        if head.get_filename() is not None:
            usual = str(head["Content-Transfer-Encoding"] or "").lower() in _IDENTITY
            yield head_end + 4, end if usual else head_end + 4
        at, start = end, end + len(delimiter)
    yield 0, 0  # malformed, or too many parts
