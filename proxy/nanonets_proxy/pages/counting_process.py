"""The process that counts pages: reads jobs from a socket, and sends a result for each (`protocol.py`).

PDFs come from callers, and PDFium is written in C++. Here it has neither keys nor network connections, and the
system bounds each job:

- after `MAX_CPU_S` of processor time, a signal ends the process;
- it may use `_MAX_MEMORY_BYTES` beside the file, and may write no file.

The process that started this one starts the next. It ends this one by closing the socket.
"""

import contextlib
import mmap
import os
import resource
import signal
import socket
from typing import Final

from nanonets_proxy.pages.pdf import initialize, pdf_pages
from nanonets_proxy.pages.protocol import JOB, RESULT, UNKNOWN
from nanonets_proxy.pages.uploads import upload_pages

MAX_CPU_S: Final = 0.02
_MAX_MEMORY_BYTES: Final = 256 * 1024 * 1024


def run(descriptor: int) -> None:
    """Does the jobs of a socket, which has this descriptor, until the other side closes it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the socket's end suffices
    initialize()
    with socket.socket(fileno=descriptor) as jobs, contextlib.suppress(ConnectionError):
        jobs.sendall(RESULT.pack(0, 0))
        while True:
            data, files, _, _ = socket.recv_fds(jobs, JOB.size, 1)
            if len(data) != JOB.size or len(files) != 1:
                return
            number, length, content_type = JOB.unpack(data)
            signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)  # SIGPROF ends the process
            pages = _pages(files[0], content_type[:length].decode("latin-1"))
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.close(files[0])
            jobs.sendall(RESULT.pack(number, UNKNOWN if pages is None else pages))


def _pages(file: int, content_type: str) -> int | None:
    size = os.fstat(file).st_size
    if not size:
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size + _MAX_MEMORY_BYTES, most))
        # A private copy, of which the system copies nothing before a write: PDFium wants writable memory.
        with mmap.mmap(file, size, access=mmap.ACCESS_COPY) as body:
            return upload_pages(body, content_type, pdf_pages)
    except (OSError, ValueError, MemoryError):
        return None
