"""The parser of answers: pure, so every octet and every split of them can be tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamReplyTooLarge,
    UpstreamUpgraded,
)
from nanonets_proxy.upstream.response_parser import ResponseParser, ResponseState
from support.parsed_response import parse, parse_with, split_at

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSED_LATER = OK + b"Content-Type: text/plain\r\n\r\n"


# --- where the body ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:0\r\n\r\n", b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"2;name=value\r\nhe\r\n3\r\nllo\r\n0;last\r\n\r\n", b"hello"),
        (OK + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
def test_a_body_ends_where_its_framing_says(data: bytes, body: bytes) -> None:
    seen = parse(data)
    assert (seen.state, seen.body, seen.keep_alive, seen.error) == (ResponseState.COMPLETE, body, True, None)


def test_without_framing_the_connections_end_is_the_bodys() -> None:
    assert parse(CLOSED_LATER, b"hello").state is ResponseState.BODY
    seen = parse(CLOSED_LATER, b"hello", ended=True)
    assert (seen.state, seen.body, seen.keep_alive, seen.error) == (ResponseState.COMPLETE, b"hello", False, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED,
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
def test_an_end_before_that_is_an_error(data: bytes) -> None:
    assert parse(data, ended=True).error is UpstreamClosed


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_statuses_have_no_body_whatever_they_announce(status: bytes) -> None:
    seen = parse(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n")
    assert (seen.state, seen.body_length, seen.body, seen.keep_alive) == (ResponseState.COMPLETE, 0, b"", True)
    assert seen.headers == ((b"Content-Length", b"5"),)


def test_a_reset_content_has_the_body_that_its_framing_says() -> None:
    assert parse(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n").state is ResponseState.COMPLETE
    assert parse(b"HTTP/1.1 205 Reset Content\r\n\r\n").state is ResponseState.BODY


def test_an_answer_to_head_ends_with_its_head() -> None:
    seen = parse(OK + b"Content-Length: 5\r\n\r\n", is_head=True)
    assert (seen.state, seen.body_length, seen.keep_alive) == (ResponseState.COMPLETE, 0, True)
    assert seen.headers == ((b"Content-Length", b"5"),)


@pytest.mark.parametrize("body", [b"", b"5\r\n", b"5\r\nhello\r\n0\r\n\r\n"])
def test_behind_a_chunked_answer_to_head_nothing_is_certain(body: bytes) -> None:
    seen = parse(CHUNKED + body, is_head=True)
    assert (seen.state, seen.body, seen.keep_alive, seen.error) == (ResponseState.COMPLETE, b"", False, None)


# --- fields -----------------------------------------------------------------------------------------


def test_fields_come_as_they_were_sent_in_order_with_repetitions() -> None:
    seen = parse(
        OK + b"Set-Cookie: a\r\nset-cookie:b  \r\nX-Empty:\r\nX-Odd: caf\xe9, \t\r\nContent-Length: 0\r\n\r\n"
    )
    assert seen.headers == (
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"X-Empty", b""),
        (b"X-Odd", b"caf\xe9,"),
        (b"Content-Length", b"0"),
    )


def test_trailers_are_kept_apart_from_the_head() -> None:
    seen = parse(CHUNKED + b"1\r\nx\r\n0\r\nDigest: abc \r\nX-Empty:\r\n\r\n")
    assert seen.trailers == ((b"Digest", b"abc"), (b"X-Empty", b""))
    assert seen.headers == ((b"Transfer-Encoding", b"chunked"),)


def test_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    seen = parse(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + OK + b"Content-Length: 0\r\n\r\n")
    assert (seen.interim_count, seen.status, seen.reason) == (2, 200, b"OK")
    assert seen.headers == ((b"Content-Length", b"0"),)


# --- whether the connection may be used again ---------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_the_connection_stays_as_version_and_connection_field_say(head: bytes, keep_alive: bool) -> None:
    assert parse(head + b"Content-Length: 0\r\n\r\n").keep_alive is keep_alive


@pytest.mark.parametrize(
    "surplus",
    [
        b"x",
        OK + b"Content-Length: 1\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ],
)
@pytest.mark.parametrize("is_head", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_octets_behind_a_whole_answer_spoil_the_connection_not_the_answer(
    surplus: bytes, is_head: bool, at_once: bool
) -> None:
    whole = OK + b"Content-Length: 2\r\n\r\n" + (b"" if is_head else b"ok")
    seen = parse(whole + surplus, is_head=is_head) if at_once else parse(whole, surplus, is_head=is_head)
    assert (seen.state, seen.status, seen.keep_alive, seen.error) == (ResponseState.COMPLETE, 200, False, None)
    assert seen.body == (b"" if is_head else b"ok")
    assert seen.headers == ((b"Content-Length", b"2"),)


# --- what is no answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00",
        b"<html>\r\n\r\n",
        b"HTTP/1.1 20 Short\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        OK + b"No colon\r\n\r\n",
        OK + b"Space : before colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"A: nul\0l\r\n\r\n",
        OK + b"A: bare line feed\n\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1, 1\r\n\r\nx",
        OK + b"Content-Length: +1\r\n\r\nx",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nx",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("is_head", [True, False])
def test_a_broken_head_is_never_shown(data: bytes, is_head: bool) -> None:
    seen = parse(data + OK + b"Content-Length: 0\r\n\r\n", is_head=is_head)
    assert (seen.error, seen.state, seen.body) == (UpstreamBadReply, ResponseState.HEAD, b"")


@pytest.mark.parametrize(
    "rest", [b"x\r\n", b"2\r\nabc\r\n", b"2\nab\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"0\r\nA b\r\n\r\n"]
)
def test_a_broken_chunk_breaks_the_body_off(rest: bytes) -> None:
    seen = parse(CHUNKED + b"2\r\nok\r\n" + rest)
    assert (seen.error, seen.state, seen.status) == (UpstreamBadReply, ResponseState.BODY, 200)


@pytest.mark.parametrize("fields", [b"Upgrade: websocket\r\nConnection: upgrade\r\n", b""])
def test_a_protocol_switch_that_nobody_asked_for_is_an_error(fields: bytes) -> None:
    seen = parse(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
    assert (seen.error, seen.state) == (UpstreamUpgraded, ResponseState.HEAD)


def test_an_offer_to_upgrade_is_none_of_that() -> None:
    assert parse(OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n").error is None


# --- faulty upstreams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_a_chunked_response_of_http_1_0_does_not_keep_the_connection(coding: bytes) -> None:
    # RFC 9112 §6.1: its framing is faulty.
    head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: " + coding
    seen = parse(head + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert (seen.state, seen.body, seen.keep_alive, seen.error) == (ResponseState.COMPLETE, b"ok", False, None)


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\nLink: <a>\r\n\r\n",
        b"HTTP/1.0 100 Continue\r\n\r\n",
    ],
)
def test_an_interim_response_that_announces_a_close_is_followed_by_the_final_one(interim: bytes) -> None:
    seen = parse(interim + OK + b"Content-Length: 2\r\n\r\nok")
    assert (seen.interim_count, seen.status, seen.body, seen.error) == (1, 200, b"ok", None)
    assert not seen.keep_alive


@pytest.mark.parametrize("protocol", [b"RTSP/1.0", b"ICE/1.0", b"RTSP/2.0"])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_response_of_another_protocol_is_an_error(protocol: bytes, before: bytes) -> None:
    data = before + protocol + b" 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        seen = parse(*pieces)
        assert (seen.error, seen.state) == (UpstreamBadReply, ResponseState.HEAD)


# --- bounds -------------------------------------------------------------------------------------------

KIBIBYTE = b"x" * 1024


def test_a_head_may_be_large_but_not_endless() -> None:
    field = b"A: %b\r\n" % KIBIBYTE
    end = b"Content-Length: 1\r\n\r\nx"
    assert parse(OK, *[field] * 60, end).error is None
    assert parse(OK, *[field] * 70, end).error is UpstreamReplyTooLarge
    assert parse(OK, b"A: ", *[KIBIBYTE] * 65).error is UpstreamReplyTooLarge


def test_interim_heads_are_bounded_together() -> None:
    assert parse(*[b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % KIBIBYTE] * 65).error is UpstreamReplyTooLarge


@pytest.mark.parametrize("start", [b"0\r\nA: ", b"1;extension="])
def test_trailers_and_chunk_extensions_are_not_endless(start: bytes) -> None:
    seen = parse(CHUNKED + b"1\r\nx\r\n" + start, *[KIBIBYTE] * 65)
    assert (seen.error, seen.body) == (UpstreamReplyTooLarge, b"x")


def test_a_body_is_as_long_as_it_likes() -> None:
    seen = parse(CHUNKED, *[b"400\r\n" + KIBIBYTE + b"\r\n"] * 300, b"0\r\n\r\n")
    assert (seen.error, len(seen.body)) == (None, 300 * 1024)


# --- whatever comes, in whatever pieces ---------------------------------------------------------------

ANSWERS = [
    OK + b"Content-Length: 5\r\nX-Empty:\r\n\r\nhello",
    CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nT: v\r\nE:\r\n\r\n",
    CLOSED_LATER + b"hello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbinary",
    b"HTTP/1.0 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
    b"\r\nHTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nRTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 099 Low\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    CHUNKED + b"1\r\nx\r\nzz\r\n",
]


@pytest.mark.parametrize("is_head", [True, False])
@given(data=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_split_of_the_octets_gives_the_same_answer(data: bytes, cuts: list[int], is_head: bool) -> None:
    whole = parse(data, is_head=is_head, ended=True)
    assert parse(*split_at(data, cuts), is_head=is_head, ended=True) == whole
    assert parse(*[data[at : at + 1] for at in range(len(data))], is_head=is_head, ended=True) == whole


@given(
    st.lists(
        st.sampled_from([*ANSWERS, b"\r\n", b"0\r\n", b"\r\n\r\n", b"5\r\n", b"A: b\r\n"]) | st.binary(max_size=30)
    ),
    st.booleans(),
)
def test_whatever_arrives_nothing_but_an_upstream_error_is_raised(pieces: list[bytes], is_head: bool) -> None:
    seen = parse(*pieces, is_head=is_head, ended=True)
    assert (seen.error is None) == (seen.state is ResponseState.COMPLETE)
    assert not seen.keep_alive


# --- one answer behind the other ------------------------------------------------------------------------

USUAL = OK + b"Content-Length: 5\r\nX-Empty:\r\n\r\nhello"


@pytest.mark.parametrize(
    ("response", "is_head", "may"),
    [
        (USUAL, False, True),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", False, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, True),
        (OK + b"Content-Length: 5\r\n\r\n", True, False),
        (USUAL + b"x", False, False),
        (USUAL[:-1], False, False),
        (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", False, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + USUAL, False, False),
        (CHUNKED + b"0\r\nDigest: abc\r\n\r\n", False, False),
        (OK + b"No colon\r\n\r\n", False, False),
        (b"H", False, False),
    ],
)
def test_only_an_answer_that_left_nothing_behind_lends_its_parser_to_the_next(
    response: bytes, is_head: bool, may: bool
) -> None:
    reply = ResponseParser(is_head=is_head)
    parse_with(reply, response)
    assert reply.restart(is_head=False, on_interim=None) is may


def test_one_that_was_fed_nothing_is_as_good_as_new() -> None:
    reply = ResponseParser(is_head=True)
    assert reply.restart(is_head=False, on_interim=None)
    assert parse_with(reply, USUAL) == parse(USUAL)


def test_a_body_that_was_not_taken_does_not_become_the_next_answers() -> None:
    reply = ResponseParser(is_head=False)
    reply.feed(USUAL)
    assert not reply.restart(is_head=False, on_interim=None)
    reply.take_body()
    assert reply.restart(is_head=False, on_interim=None)
    assert (reply.state, reply.has_begun, reply.keep_alive, reply.take_body()) == (
        ResponseState.HEAD,
        False,
        False,
        b"",
    )


@given(
    before=st.lists(st.sampled_from([*ANSWERS, USUAL]), max_size=3),
    data=st.sampled_from(ANSWERS),
    cuts=st.lists(st.integers(0, 200), max_size=3),
    is_head=st.booleans(),
)
def test_what_came_before_changes_no_answer(
    before: list[bytes], data: bytes, cuts: list[int], is_head: bool
) -> None:
    reply = ResponseParser(is_head=False)
    for response in before:
        parse_with(reply, response)
        if not reply.restart(is_head=False, on_interim=None):
            reply = ResponseParser(is_head=False)
    parse_with(reply, USUAL)
    assert reply.restart(is_head=is_head, on_interim=None)
    assert parse_with(reply, *split_at(data, cuts), ended=True) == parse(data, is_head=is_head, ended=True)
