"""Whole answers that are read past the parser: only where it would have taken them, and as it would have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.mutations import mutated
from nanonets_proxy.upstream.response_parser import MAX_HEAD_BYTES, ResponseParser, ResponseState
from nanonets_proxy.upstream.response_patterns import ResponsePatterns
from support.parsed_response import ParsedResponse, parse, parse_with, split_at

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Date: Tue, 24 Nov 2026 15:00:00 GMT\r\nContent-Length: 2\r\nX-Odd: caf\xe9 %% {}\r\n\r\nok"
KEPT = OK + b"Connection: keep-alive\r\ncontent-length: 11\r\nKeep-Alive: timeout=5\r\n\r\n\x00\r\n\r\nHTTP/1"
TWICE = b"HTTP/1.1 404 Not Found\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 1\r\nA.b: c\r\n\r\nx"
USUAL = [PLAIN, KEPT, TWICE]


def after(*responses: bytes | list[bytes], shapes: ResponsePatterns | None = None) -> ResponseParser:
    """One that is ready for the answer behind these, whole ones or pieces, of a connection that stays."""
    reply = ResponseParser(is_head=False, shapes=shapes)
    for response in responses:
        first, *rest = [response] if isinstance(response, bytes) else response
        for piece in rest if takes(reply, first) else (first, *rest):
            reply.feed(piece)
        reply.take_body()
        assert reply.restart(is_head=False, on_interim=None)
    return reply


def takes(reply: ResponseParser, data: bytes) -> bool:
    return reply.feed_whole(memoryview(data), len(data))


def field(line: bytes) -> bytes:
    return OK + b"Content-Length: 2\r\n" + line + b"\r\n\r\nok"


@pytest.mark.parametrize("usual", USUAL)
def test_the_third_of_its_kind_passes_the_parser_by(usual: bytes) -> None:
    assert not takes(after(), usual)
    assert not takes(after(usual), usual)
    reply = after(usual, usual)
    assert takes(reply, usual)
    assert (reply.state, reply.has_begun) == (ResponseState.COMPLETE, True)
    assert parse_with(reply) == parse(usual)


def test_values_and_body_may_be_others_each_time() -> None:
    reply = after(PLAIN, PLAIN)
    for value in (b"x", b"a  b", b"\x80", b"~" * 1000):
        data = OK + b"Date: %b\r\nContent-Length: %d\r\nX-Odd: :\r\n\r\n%b" % (value, len(value) + 1, value + b"\0")
        assert takes(reply, data)
        assert parse_with(reply) == parse(data)
        assert reply.restart(is_head=False, on_interim=None)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN[:40],
        b"\r\n" + PLAIN,
        PLAIN.replace(b"200 OK", b"201 OK"),
        PLAIN.replace(b"200 OK", b"200 ok"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"Date", b"date"),
        PLAIN.replace(b"Date: ", b"Date:"),
        PLAIN.replace(b"Date: ", b"Date:  "),
        PLAIN.replace(b"GMT", b"GMT "),
        PLAIN.replace(b"GMT", b"G\tMT"),
        PLAIN.replace(b"GMT", b"G\x7fMT"),
        PLAIN.replace(b"GMT", b"G\rMT"),
        PLAIN.replace(b"GMT\r\n", b"GMT\n"),
        PLAIN.replace(b"GMT\r\n", b"GMT\r\n folded\r\n"),
        PLAIN.replace(b"Tue, 24 Nov 2026 15:00:00 GMT", b""),
        PLAIN.replace(b": 2\r\n", b": +2\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2 \r\n"),
        PLAIN.replace(b": 2\r\n", b": 0000000000000002\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nContent-Length: 2\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nX-New: x\r\n"),
    ],
)
def test_all_else_is_the_parsers_to_judge(data: bytes) -> None:
    reply = after(PLAIN, PLAIN)
    assert not takes(reply, data)
    assert (reply.state, reply.has_begun) == (ResponseState.HEAD, False)
    assert parse_with(reply, data) == parse(data)


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 %b\r\nContent-Length: 2\r\n\r\nok" % (b"x" * 65),
        field(b"Upgrade: h2c"),
        field(b"Proxy-Connection: keep-alive"),
        field(b"\r\n".join(b"X-%d: x" % number for number in range(64))),
        field(b"X" * 2048 + b": x"),
    ],
)
def test_some_answers_have_no_shape(data: bytes) -> None:
    assert not takes(after(data, data, data), data)


@pytest.mark.parametrize("option", [b"close", b"Keep-Alive, X-Hop", b"upgrade"])
def test_a_connection_field_that_says_more_than_to_stay_is_read_by_the_parser(option: bytes) -> None:
    data = KEPT.replace(b"keep-alive", option)
    reply = after(KEPT, KEPT)
    assert not takes(reply, data)
    assert parse_with(reply, data) == parse(data)
    assert takes(after(KEPT, KEPT), KEPT.replace(b"keep-alive", b"Keep-Alive"))


def test_an_answer_to_head_is_the_parsers_even_if_a_body_comes_with_it() -> None:
    reply = after(PLAIN, PLAIN)
    reply.restart(is_head=True, on_interim=None)
    assert not takes(reply, PLAIN)
    assert parse_with(reply, PLAIN) == parse(PLAIN, is_head=True)


def test_octets_behind_an_answer_that_passed_the_parser_by_spoil_the_connection() -> None:
    reply = after(PLAIN, PLAIN)
    assert takes(reply, PLAIN)
    reply.feed(b"x")
    assert not reply.keep_alive
    assert parse_with(reply) == parse(PLAIN, b"x")


def test_behind_two_answers_of_no_known_shape_the_next_is_not_tried() -> None:
    cut = [PLAIN[:-1], PLAIN[-1:]]
    assert takes(after(PLAIN, PLAIN, cut), PLAIN)
    reply = after(PLAIN, PLAIN, cut, cut)
    assert not takes(reply, PLAIN)
    assert parse_with(reply, PLAIN) == parse(PLAIN)
    assert reply.restart(is_head=False, on_interim=None)
    assert takes(reply, PLAIN)


def test_two_kinds_in_turn_both_pass_the_parser_by() -> None:
    reply = after(PLAIN, PLAIN, KEPT, KEPT)
    for data in (PLAIN, KEPT, PLAIN, PLAIN, KEPT):
        assert takes(reply, data)
        assert parse_with(reply) == parse(data)
        assert reply.restart(is_head=False, on_interim=None)


def test_what_one_connection_learned_serves_them_all() -> None:
    shapes = ResponsePatterns()
    after(PLAIN, PLAIN, shapes=shapes)
    assert takes(after(PLAIN, shapes=shapes), PLAIN)
    assert takes(after(KEPT, PLAIN, shapes=shapes), PLAIN)


@pytest.mark.parametrize(("length", "is_taken"), [(MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)])
def test_an_answer_may_be_so_long_and_no_longer(length: int, is_taken: bool) -> None:
    head = OK + b"Content-Length: 65000\r\nX-Pad: %b\r\n\r\n"
    data = head % (b"x" * (length - len(head % b"") - 65000)) + bytes(65000)
    assert len(data) == length
    assert takes(after(data, data), data) is is_taken


def test_an_upstream_of_ever_new_fields_gets_no_more_than_so_many_expressions() -> None:
    shapes = ResponsePatterns()
    responses = [field(b"X-%d: x" % number) for number in range(100)]
    for response in responses:
        after(response, response, shapes=shapes)
    assert sum(takes(after(response, shapes=shapes), response) for response in responses) == 64


@pytest.mark.parametrize(("others", "is_known"), [(255, True), (256, False)])
def test_what_came_once_is_forgotten_behind_hundreds_of_others(others: int, is_known: bool) -> None:
    shapes = ResponsePatterns()
    after(PLAIN, *(field(b"X-%d: x" % number) for number in range(others)), shapes=shapes)
    assert takes(after(PLAIN, shapes=shapes), PLAIN) is is_known


# --- the same as the parser's ---------------------------------------------------------------------------


def parsed(usual: bytes, data: bytes) -> tuple[ParsedResponse, bool]:
    """What becomes of `data` behind usual answers, and whether the parser was passed by."""
    reply = after(usual, usual)
    if takes(reply, data):
        return parse_with(reply), True
    return parse_with(reply, data), False


@pytest.mark.parametrize("usual", USUAL)
def test_whatever_octet_is_changed_added_or_lost_the_parser_would_say_the_same(usual: bytes) -> None:
    taken = 0
    for at in range(len(usual)):
        kept = [usual[:at] + usual[at + 1 :], usual[:at]]
        kept += [usual[:at] + bytes([octet]) + usual[at + 1 :] for octet in range(256)]
        kept += [usual[:at] + octet + usual[at:] for octet in (b"\r", b"\n", b"\0", b" ", b"\t", b":", b"0", b"x")]
        for data in kept:
            seen, passed_by = parsed(usual, data)
            assert seen == parse(data), data
            taken += passed_by
    assert taken > 1000


@given(usual=st.sampled_from(USUAL), data=mutated(USUAL))
def test_whatever_is_changed_the_parser_would_say_the_same(usual: bytes, data: bytes) -> None:
    seen, _ = parsed(usual, data)
    assert seen == parse(data)


VALUES = st.text(st.sampled_from("\x00\t\n\r !:;a~\x7f\x80\xff"), max_size=6).map(
    lambda text: text.encode("latin-1")
)


@given(
    values=st.lists(VALUES, min_size=2, max_size=2),
    length=st.sampled_from([b"0", b"1", b"2", b"02", b"3", b"-2", b"2 ", b"\xb2", b"2_0", b""]),
    body=st.binary(max_size=4) | st.just(b"ok"),
    glue=st.sampled_from([b": ", b":", b" : ", b":\t", b":\r\n "]),
)
def test_whatever_the_values_are_the_parser_would_say_the_same(
    values: list[bytes], length: bytes, body: bytes, glue: bytes
) -> None:
    data = OK + b"Date: %b\r\nContent-Length: %b\r\nX-Odd%b%b\r\n\r\n%b" % (
        values[0],
        length,
        glue,
        values[1],
        body,
    )
    seen, _ = parsed(PLAIN, data)
    assert seen == parse(data)


@given(st.lists(st.tuples(st.sampled_from(USUAL), st.lists(st.integers(1, 200), max_size=1)), max_size=12))
def test_a_pattern_match_leaves_the_parser_ready_for_the_next_response(
    responses: list[tuple[bytes, list[int]]],
) -> None:
    reply = after()
    for data, cuts in responses:
        first, *rest = [piece for piece in split_at(data, cuts) if piece]
        assert parse_with(reply, *rest if takes(reply, first) else (first, *rest)) == parse(data)
        assert reply.restart(is_head=False, on_interim=None)
