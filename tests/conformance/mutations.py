"""Mutates the entries of a corpus for fuzzing."""

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

# Tokens that parsers often mishandle: line ends, separators, framing, numbers.
_TOKENS: Final = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\x00",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"0",
    b"-1",
    b"+1",
    b"1",
    b"0x1",
    b"99999999999999999999",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"Host: evil.example\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\n",
    b"Trailer: X\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"304",
    b"204",
    b"HEAD",
]

Change = Callable[[bytes], bytes]


@st.composite
def _changes(draw: st.DrawFn) -> Change:
    at = draw(st.integers(0, 700))
    count = draw(st.integers(0, 40))
    token = draw(st.sampled_from(_TOKENS) | st.binary(min_size=1, max_size=4))
    kind = draw(st.sampled_from(["insert", "delete", "replace", "repeat", "cut", "repeat line", "drop line"]))

    def change(data: bytes) -> bytes:
        place = at % (len(data) + 1)
        if kind == "insert":
            return data[:place] + token + data[place:]
        if kind == "delete":
            return data[:place] + data[place + count :]
        if kind == "replace":
            return data[:place] + token + data[place + len(token) :]
        if kind == "repeat":
            return data[: place + count] + data[place:]
        if kind == "cut":
            return data[:place]
        lines = data.splitlines(keepends=True) or [b""]
        number = at % len(lines)
        middle = [lines[number]] * 2 if kind == "repeat line" else []
        return b"".join([*lines[:number], *middle, *lines[number + 1 :]])

    return change


def mutated(corpus: list[bytes]) -> st.SearchStrategy[bytes]:
    """Returns one entry or two concatenated entries, with at most five changes."""

    def build(entries: list[bytes], changes: list[Change]) -> bytes:
        data = b"".join(entries)
        for change in changes:
            data = change(data)
        return data[:4096]

    entries = st.lists(st.sampled_from(corpus), min_size=1, max_size=2)
    return st.builds(build, entries, st.lists(_changes(), max_size=5))
