"""Status line and fields of an answer, without its body."""

from typing import Final


class ResponseHead:
    """Status line and fields of an answer, as they came; `values` has the value of each of `names`, which are one
    and the same tuple for answers of like fields on a connection. `body_length` is None where only chunked coding
    or the connection's end delimits the body; `is_chunked` tells which."""

    __slots__ = ("body_length", "is_chunked", "names", "reason", "status", "values")

    # One is made for each answer, and filled in where it is made: a constructor would double its cost.
    status: int
    reason: bytes
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    body_length: int | None
    is_chunked: bool

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The fields as pairs."""
        return list(zip(self.names, self.values, strict=True))


NO_HEAD: Final = ResponseHead()
"""Of an answer whose head has not come."""
NO_HEAD.status, NO_HEAD.reason, NO_HEAD.names, NO_HEAD.values = 0, b"", (), ()
NO_HEAD.body_length, NO_HEAD.is_chunked = None, False
