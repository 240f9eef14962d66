"""The messages between the proxy and the process that counts pages, over a stream socket."""

import struct
from typing import Final

JOB: Final = struct.Struct("!IH506s")
"""To the process, with a file descriptor: the job's number, and length and text of the upload's Content-Type."""

MAX_TYPE_BYTES: Final = 506

RESULT: Final = struct.Struct("!Ii")
"""To the proxy: the job's number and the pages. Number 0 says that the process is ready."""

UNKNOWN: Final = -1
"""The pages could not be counted."""
