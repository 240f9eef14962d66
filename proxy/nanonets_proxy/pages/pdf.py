"""The pages of a PDF file, by PDFium, which Chrome uses too.

PDFium reads only the cross-reference table and the root of the page tree: 20 MB take 0.2 ms, and 2,000 pages 2 ms.
The same files take pypdf 30 and 340 ms, and pikepdf 0.5 and 110 ms. A damaged file of 20 MB takes each of them a
second. So this code must run in a process that can be killed.
"""

import ctypes

import pypdfium2_raw as pdfium


def initialize() -> None:
    """Prepares the library. Must be called once, before `pdf_pages`."""
    pdfium.FPDF_InitLibrary()


def pdf_pages(file: memoryview) -> int | None:
    """Returns the number of pages; None if the file is damaged, or needs a password. The memory is writable."""
    first_byte = ctypes.c_char.from_buffer(file)  # no copy
    document = pdfium.FPDF_LoadMemDocument64(ctypes.byref(first_byte), len(file), None)
    if not document:
        return None
    try:
        return pdfium.FPDF_GetPageCount(document) or None
    finally:
        pdfium.FPDF_CloseDocument(document)
