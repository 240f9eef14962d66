"""The response parser. It is pure, so the tests try every split of the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.upstream.errors import UpstreamBadReply, UpstreamClosed, UpstreamReplyTooLarge, UpstreamUpgraded
from nanonets_proxy.upstream.response_parser import (
    MOST_FIELDS,
    MOST_INTERIM_RESPONSES,
    ResponseParser,
    ResponseState,
)
from upstream.parsed_response import parse, parse_with, split_at

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CLOSED_LATER = OK + b"Content-Type: text/plain\r\n\r\n"


# --- where the body ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:0\r\n\r\n", b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        # RFC 9112 §7.1.1 allows white space, httptools does not.
        (CHUNKED + b"5; a=b\r\nhello\r\n0 ;c = d\r\n\r\n", b"hello"),
        (HINTS + CHUNKED + b"2\r\nhe\r\n3\t;a\r\nllo\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"2;name=value\r\nhe\r\n3\r\nllo\r\n0;last\r\n\r\n", b"hello"),
        (OK + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
def test_a_body_ends_where_its_framing_says(data: bytes, body: bytes) -> None:
    parsed = parse(data)
    assert (parsed.state, parsed.body, parsed.keep_alive, parsed.error) == (
        ResponseState.COMPLETE,
        body,
        True,
        None,
    )


def test_without_framing_the_end_of_the_connection_ends_the_body() -> None:
    assert parse(CLOSED_LATER, b"hello").state is ResponseState.BODY
    parsed = parse(CLOSED_LATER, b"hello", ended=True)
    assert (parsed.state, parsed.body, parsed.keep_alive, parsed.error) == (
        ResponseState.COMPLETE,
        b"hello",
        False,
        None,
    )


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
def test_an_early_end_of_the_connection_is_an_error(data: bytes) -> None:
    assert parse(data, ended=True).error is UpstreamClosed


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_204_and_304_have_no_body_for_any_fields(status: bytes) -> None:
    parsed = parse(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n")
    assert (parsed.state, parsed.body_length, parsed.body, parsed.keep_alive) == (
        ResponseState.COMPLETE,
        0,
        b"",
        True,
    )
    assert parsed.headers == ((b"Content-Length", b"5"),)


def test_a_reset_content_has_the_body_that_its_framing_says() -> None:
    assert parse(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n").state is ResponseState.COMPLETE
    assert parse(b"HTTP/1.1 205 Reset Content\r\n\r\n").state is ResponseState.BODY


def test_a_response_to_head_ends_with_its_head() -> None:
    parsed = parse(OK + b"Content-Length: 5\r\n\r\n", is_head=True)
    assert (parsed.state, parsed.body_length, parsed.keep_alive) == (ResponseState.COMPLETE, 0, True)
    assert parsed.headers == ((b"Content-Length", b"5"),)


@pytest.mark.parametrize("body", [b"", b"5\r\n", b"5\r\nhello\r\n0\r\n\r\n"])
def test_a_chunked_response_to_head_does_not_keep_the_connection(body: bytes) -> None:
    parsed = parse(CHUNKED + body, is_head=True)
    assert (parsed.state, parsed.body, parsed.keep_alive, parsed.error) == (
        ResponseState.COMPLETE,
        b"",
        False,
        None,
    )


# --- fields -----------------------------------------------------------------------------------------


def test_fields_keep_their_order_case_and_repetition() -> None:
    parsed = parse(
        OK + b"Set-Cookie: a\r\nset-cookie:b  \r\nX-Empty:\r\nX-Odd: caf\xe9, \t\r\nContent-Length: 0\r\n\r\n"
    )
    assert parsed.headers == (
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"X-Empty", b""),
        (b"X-Odd", b"caf\xe9,"),
        (b"Content-Length", b"0"),
    )


def test_trailers_are_separate_from_the_head() -> None:
    parsed = parse(CHUNKED + b"1\r\nx\r\n0\r\nDigest: abc \r\nX-Empty:\r\n\r\n")
    assert parsed.trailers == ((b"Digest", b"abc"), (b"X-Empty", b""))
    assert parsed.headers == ((b"Transfer-Encoding", b"chunked"),)


def test_interim_responses_are_skipped() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    parsed = parse(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + OK + b"Content-Length: 0\r\n\r\n")
    assert (parsed.interim_count, parsed.status, parsed.reason) == (2, 200, b"OK")
    assert parsed.headers == ((b"Content-Length", b"0"),)


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
def test_version_and_connection_field_decide_about_keep_alive(head: bytes, keep_alive: bool) -> None:
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
def test_bytes_after_a_complete_response_end_keep_alive_and_leave_the_response_valid(
    surplus: bytes, is_head: bool, at_once: bool
) -> None:
    whole = OK + b"Content-Length: 2\r\n\r\n" + (b"" if is_head else b"ok")
    parsed = parse(whole + surplus, is_head=is_head) if at_once else parse(whole, surplus, is_head=is_head)
    assert (parsed.state, parsed.status, parsed.keep_alive, parsed.error) == (
        ResponseState.COMPLETE,
        200,
        False,
        None,
    )
    assert parsed.body == (b"" if is_head else b"ok")
    assert parsed.headers == ((b"Content-Length", b"2"),)


# --- invalid responses --------------------------------------------------------------------------------


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
    parsed = parse(data + OK + b"Content-Length: 0\r\n\r\n", is_head=is_head)
    assert (parsed.error, parsed.state, parsed.body) == (UpstreamBadReply, ResponseState.HEAD, b"")


@pytest.mark.parametrize(
    "rest", [b"x\r\n", b"2\r\nabc\r\n", b"2\nab\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"0\r\nA b\r\n\r\n"]
)
def test_a_broken_chunk_is_an_error(rest: bytes) -> None:
    parsed = parse(CHUNKED + b"2\r\nok\r\n" + rest)
    assert (parsed.error, parsed.state, parsed.status) == (UpstreamBadReply, ResponseState.BODY, 200)


@pytest.mark.parametrize("fields", [b"Upgrade: websocket\r\nConnection: upgrade\r\n", b""])
def test_an_unsolicited_protocol_switch_is_an_error(fields: bytes) -> None:
    parsed = parse(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
    assert (parsed.error, parsed.state) == (UpstreamUpgraded, ResponseState.HEAD)


def test_an_offer_to_upgrade_is_not_an_error() -> None:
    assert parse(OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n").error is None


# --- faulty upstreams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_a_chunked_response_of_http_1_0_does_not_keep_the_connection(coding: bytes) -> None:
    # RFC 9112 §6.1: its framing is faulty.
    head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: " + coding
    parsed = parse(head + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert (parsed.state, parsed.body, parsed.keep_alive, parsed.error) == (
        ResponseState.COMPLETE,
        b"ok",
        False,
        None,
    )


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\nLink: <a>\r\n\r\n",
        b"HTTP/1.0 100 Continue\r\n\r\n",
    ],
)
def test_an_interim_response_that_announces_a_close_is_followed_by_the_final_one(interim: bytes) -> None:
    parsed = parse(interim + OK + b"Content-Length: 2\r\n\r\nok")
    assert (parsed.interim_count, parsed.status, parsed.body, parsed.error) == (1, 200, b"ok", None)
    assert not parsed.keep_alive


@pytest.mark.parametrize("protocol", [b"RTSP/1.0", b"ICE/1.0", b"RTSP/2.0"])
@pytest.mark.parametrize("before", [b"", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_response_of_another_protocol_is_an_error(protocol: bytes, before: bytes) -> None:
    data = before + protocol + b" 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        parsed = parse(*pieces)
        assert (parsed.error, parsed.state) == (UpstreamBadReply, ResponseState.HEAD)


# --- bounds -------------------------------------------------------------------------------------------

KIBIBYTE = b"x" * 1024


def test_the_size_of_a_head_is_limited() -> None:
    field = b"A: %b\r\n" % KIBIBYTE
    end = b"Content-Length: 1\r\n\r\nx"
    assert parse(OK, *[field] * 60, end).error is None
    assert parse(OK, *[field] * 70, end).error is UpstreamReplyTooLarge
    assert parse(OK, b"A: ", *[KIBIBYTE] * 65).error is UpstreamReplyTooLarge
    assert parse(b"HTTP/1.1 404 %b\r\n%b" % (KIBIBYTE * 65, end)).error is UpstreamReplyTooLarge


def test_interim_heads_count_together() -> None:
    assert parse(*[b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % KIBIBYTE] * 65).error is UpstreamReplyTooLarge


def test_the_number_of_interim_responses_and_of_fields_is_limited() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    end = OK + b"Content-Length: 1\r\n\r\nx"
    assert parse(interim * MOST_INTERIM_RESPONSES + end).error is None
    assert parse(interim * (MOST_INTERIM_RESPONSES + 1) + end).error is UpstreamReplyTooLarge
    assert parse(OK, b"A:\r\n" * (MOST_FIELDS - 1), b"Content-Length: 1\r\n\r\nx").error is None
    assert parse(OK, b"A:\r\n" * MOST_FIELDS, b"Content-Length: 1\r\n\r\nx").error is UpstreamReplyTooLarge


@pytest.mark.parametrize("start", [b"0\r\nA: ", b"1;extension="])
def test_the_size_of_trailers_and_chunk_extensions_is_limited(start: bytes) -> None:
    parsed = parse(CHUNKED + b"1\r\nx\r\n" + start, *[KIBIBYTE] * 65)
    assert (parsed.error, parsed.body) == (UpstreamReplyTooLarge, b"x")


def test_the_size_of_a_body_is_unlimited() -> None:
    parsed = parse(CHUNKED, *[b"400\r\n" + KIBIBYTE + b"\r\n"] * 300, b"0\r\n\r\n")
    assert (parsed.error, len(parsed.body)) == (None, 300 * 1024)


# --- any input, in any pieces ---------------------------------------------------------------

RESPONSES = [
    CHUNKED + b"5; a=b\r\nhello\r\n0 ;c = d\r\nX: y\r\n\r\n",
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
@given(data=st.sampled_from(RESPONSES), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_split_of_the_bytes_gives_the_same_response(data: bytes, cuts: list[int], is_head: bool) -> None:
    whole = parse(data, is_head=is_head, ended=True)
    assert parse(*split_at(data, cuts), is_head=is_head, ended=True) == whole
    assert parse(*[data[at : at + 1] for at in range(len(data))], is_head=is_head, ended=True) == whole


@given(
    st.lists(
        st.sampled_from([*RESPONSES, b"\r\n", b"0\r\n", b"\r\n\r\n", b"5\r\n", b"A: b\r\n"])
        | st.binary(max_size=30)
    ),
    st.booleans(),
)
def test_any_input_raises_only_upstream_errors(pieces: list[bytes], is_head: bool) -> None:
    parsed = parse(*pieces, is_head=is_head, ended=True)
    assert (parsed.error is None) == (parsed.state is ResponseState.COMPLETE)
    assert not parsed.keep_alive


# --- consecutive responses ------------------------------------------------------------------------

USUAL = OK + b"Content-Length: 5\r\nX-Empty:\r\n\r\nhello"


@pytest.mark.parametrize(
    ("response", "is_head", "may_restart"),
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
def test_a_parser_is_reused_only_after_a_response_that_left_nothing_behind(
    response: bytes, is_head: bool, may_restart: bool
) -> None:
    parser = ResponseParser(is_head=is_head)
    parse_with(parser, response)
    assert parser.restart(is_head=False, on_interim=None) is may_restart


def test_an_unused_parser_can_restart() -> None:
    parser = ResponseParser(is_head=True)
    assert parser.restart(is_head=False, on_interim=None)
    assert parse_with(parser, USUAL) == parse(USUAL)


def test_an_untaken_body_does_not_reach_the_next_response() -> None:
    parser = ResponseParser(is_head=False)
    parser.feed(USUAL)
    assert not parser.restart(is_head=False, on_interim=None)
    parser.take_body()
    assert parser.restart(is_head=False, on_interim=None)
    assert (parser.state, parser.has_begun, parser.keep_alive, parser.take_body()) == (
        ResponseState.HEAD,
        False,
        False,
        b"",
    )


@given(
    before=st.lists(st.sampled_from([*RESPONSES, USUAL]), max_size=3),
    data=st.sampled_from(RESPONSES),
    cuts=st.lists(st.integers(0, 200), max_size=3),
    is_head=st.booleans(),
)
def test_earlier_responses_do_not_change_a_response(
    before: list[bytes], data: bytes, cuts: list[int], is_head: bool
) -> None:
    parser = ResponseParser(is_head=False)
    for response in before:
        parse_with(parser, response)
        if not parser.restart(is_head=False, on_interim=None):
            parser = ResponseParser(is_head=False)
    parse_with(parser, USUAL)
    assert parser.restart(is_head=is_head, on_interim=None)
    assert parse_with(parser, *split_at(data, cuts), ended=True) == parse(data, is_head=is_head, ended=True)
