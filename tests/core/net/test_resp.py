"""Replies of Redis in RESP2, in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.net import resp
from nanonets_proxy.core.net.resp import ErrorReply, Reply, ReplyReader, pack

REPLIES: list[tuple[bytes, Reply]] = [
    (b"+OK\r\n", b"OK"),
    (b"-NOPERM no right\r\n", ErrorReply("NOPERM no right")),
    (b"-\xff\r\n", ErrorReply("\ufffd")),
    (b":0\r\n", 0),
    (b":-12\r\n", -12),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$3\r\n\x00*\n\r\n", [b"message", b"ch", b"\x00*\n"]),
    (b"*3\r\n$9\r\nsubscribe\r\n+ch\r\n:1\r\n", [b"subscribe", b"ch", 1]),
    (b"*2\r\n-ERR\r\n$-1\r\n", [ErrorReply("ERR"), None]),
]


def read(pieces: list[bytes]) -> list[Reply]:
    reader = ReplyReader()
    return [reply for piece in pieces for reply in reader.feed(piece)]


@pytest.mark.parametrize(("data", "reply"), REPLIES)
def test_a_reply_is_read_once_it_is_whole(data: bytes, reply: Reply) -> None:
    assert read([data]) == [reply]
    assert read([data[:-1]]) == []
    assert read([data[n : n + 1] for n in range(len(data))]) == [reply]


@given(st.lists(st.sampled_from(REPLIES)), st.data())
def test_the_pieces_in_which_replies_arrive_do_not_matter(
    replies: list[tuple[bytes, Reply]], data: st.DataObject
) -> None:
    whole, pieces = b"".join(each for each, _ in replies), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        pieces.append(whole[:size])
        whole = whole[size:]
    assert read(pieces) == [reply for _, reply in replies]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request", "begins no reply"),
        (b"\r\n", "begins no reply"),
        (b":one\r\n", "invalid literal"),
        (b"*1\r\n*0\r\n", "an array in an array"),
        (b"*1\r\n%0\r\n", "begins no reply"),
        (b"*1025\r\n", "many items"),
        (b"$67108865\r\n", "more than 64 MiB"),
        (b"+" + 65536 * b"x", "long line"),
    ],
)
def test_other_data_is_an_error(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read([data])


def test_a_large_reply_in_small_pieces_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    def count(data: bytes, at: int) -> object:
        nonlocal parsed
        parsed += 1
        return original(data, at)

    original = resp._read
    monkeypatch.setattr(resp, "_read", count)
    size = 1_000_000
    data = b"$%d\r\n" % size + size * b"x" + b"\r\n"
    assert read([data[n : n + 1000] for n in range(0, len(data), 1000)]) == [size * b"x"]
    assert parsed == 2


def test_a_command_is_an_array_of_its_words() -> None:
    assert pack(b"PUBLISH", b"to:b", b"\r\n") == b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nto:b\r\n$2\r\n\r\n\r\n"
    assert read([pack(b"PING")]) == [[b"PING"]]
