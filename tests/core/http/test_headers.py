"""Header fields in both directions: strip, rewrite, inject."""

import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.http.headers import (
    LocationRewrite,
    caller_response_head,
    chunked_body_end,
    connection_options,
    passing_lines,
    via_field,
)
from nanonets_proxy.core.http.request_head import CallersHostHeads, RequestHead, RequestHeads, UpstreamHeads
from nanonets_proxy.errors import BadRequest, NotImplementedHere

Fields = list[tuple[bytes, bytes]]

KEY = b"Basic b3Vycw=="
HOST = (b"Host", b"localhost:8080")

TOKENS = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
VALUES = st.binary(max_size=20).map(lambda value: bytes(octet for octet in value if octet not in b"\r\n\0"))
# Names that the proxy does not know.
FREE_NAMES = TOKENS.map(lambda token: b"x-free-" + token.replace(b"_", b"-"))
HOP_BY_HOP = [b"Connection", b"Keep-Alive", b"TE", b"Upgrade", b"Proxy-Authorization", b"Proxy-Connection"]
NOT_FORWARDED = [
    *[
        b"Keep-Alive",
        b"Proxy-Authenticate",
        b"Proxy-Authentication-Info",
        b"Proxy-Authorization",
        b"Proxy-Connection",
    ],
    *[b"TE", b"Upgrade", b"Authorization", b"Forwarded", b"HTTP2-Settings", b"Trailer", b"X-Real-IP"],
    *[b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"x-forwarded-anything"],
]


def read_by(heads: RequestHeads, *fields: tuple[bytes, bytes]) -> RequestHead:
    return heads.read(tuple(name for name, _ in fields), tuple(value for _, value in fields))


def read(*fields: tuple[bytes, bytes]) -> RequestHead:
    return read_by(RequestHeads(), HOST, *fields)


def sent(*fields: tuple[bytes, bytes], via: bytes = b"") -> list[bytes]:
    """Returns the lines that the upstream gets for these fields of the caller."""
    heads = UpstreamHeads(host=b"up.example", authorization=KEY, via=via)
    head = heads.write(b"GET /a?b", read(*fields))
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


# --- the fields that the proxy reads ------------------------------------------------------------


def test_the_fields_that_the_proxy_needs_are_found_in_any_case() -> None:
    head = read_by(
        RequestHeads(caller_header=b"x-team"),
        (b"hOST", b"proxy:80"),
        (b"ORIGIN", b"http://proxy:80"),
        (b"sec-fetch-SITE", b"same-origin"),
        (b"x-request-id", b"abc"),
        (b"X-Team", b"billing"),
        (b"Prefer", b"wait=1"),
        (b"prefer", b"respond-async"),
        (b"Priority", b"u=1"),
        (b"Access-Control-Request-Method", b"GET"),
        (b"authorization", b"Basic dG9rZW46"),
        (b"EXPECT", b" 100-Continue "),
        (b"Upgrade", b"websocket"),
        (b"content-length", b"42"),
    )
    assert (head.host, head.origin, head.sec_fetch_site) == (b"proxy:80", b"http://proxy:80", b"same-origin")
    assert (head.request_id, head.caller, head.prefer) == (b"abc", b"billing", (b"wait=1", b"respond-async"))
    assert (head.expect_continue, head.body_length) == (True, 42)
    assert (head.priority, head.is_preflight, head.credentials) == ((b"u=1",), True, b"Basic dG9rZW46")


def test_a_request_without_fields_has_the_defaults() -> None:
    head = read_by(RequestHeads())
    assert (head.host, head.fields, head.body_length, head.prefer, head.priority) == (b"", b"", 0, (), ())
    assert (head.origin, head.sec_fetch_site, head.request_id, head.caller, head.credentials) == (None,) * 5
    assert (head.is_preflight, head.expect_continue) == (False, False)


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_trace_of_a_request_has_its_state_from_all_fields() -> None:
    trace = read((b"TraceParent", PARENT), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")).trace
    assert trace == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, b"a=1,b=2")


def test_of_two_traceparent_fields_neither_counts() -> None:
    assert read((b"traceparent", PARENT), (b"traceparent", PARENT)).trace is None


def test_an_http_1_0_caller_may_leave_out_the_host() -> None:
    head = read_by(RequestHeads(), (b"Accept", b"*/*"))
    assert (head.host, head.fields) == (b"", b"Accept: */*\r\n")


def test_any_other_expectation_is_not_100_continue() -> None:
    assert not read((b"Expect", b"tea")).expect_continue


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"a:", b"[::1]:80", b"10.0.0.1", b"a_b-c~d", b""])
def test_a_well_formed_host_is_unchanged(host: bytes) -> None:
    assert read_by(RequestHeads(), (b"Host", host)).host == host


@pytest.mark.parametrize(
    "host", [b"a, b", b"a b", b"user@a", b"a/b", b"a:80:80", b"a:x", b"[a", b"http://a", b"a\xff"]
)
def test_a_malformed_host_is_a_bad_request(host: bytes) -> None:
    with pytest.raises(BadRequest, match="Host"):
        read_by(RequestHeads(), (b"Host", host))


def test_a_host_is_checked_after_any_number_of_others() -> None:
    heads = RequestHeads()
    for number in range(100):
        host = b"host-%d" % number
        assert read_by(heads, (b"Host", host)).host == host
        assert read_by(heads, (b"Host", host)).host == host
    with pytest.raises(BadRequest, match="Host"):
        read_by(heads, (b"Host", b"a b"))


def test_two_host_fields_are_a_bad_request_even_if_equal() -> None:
    with pytest.raises(BadRequest, match="more than one"):
        read_by(RequestHeads(), HOST, HOST)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b" chunked "])
def test_a_chunked_body_has_no_length(coding: bytes) -> None:
    assert read((b"Transfer-Encoding", coding)).body_length is None


@pytest.mark.parametrize("codings", [[b"gzip"], [b"gzip, chunked"], [b"chunked", b"chunked"], [b"identity"], [b""]])
def test_any_other_transfer_coding_is_not_implemented(codings: list[bytes]) -> None:
    with pytest.raises(NotImplementedHere):
        read(*[(b"Transfer-Encoding", coding) for coding in codings])


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1 ", b"0x1", b"1,1", b"1.0", b"\xb2", b"9" * 20])
def test_a_malformed_content_length_is_a_bad_request(length: bytes) -> None:
    with pytest.raises(BadRequest, match="Content-Length"):
        read((b"Content-Length", length))


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Content-Length", b"3"), (b"content-length", b"3")],
        [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3")],
    ],
)
def test_a_second_length_or_a_length_beside_chunked_is_a_bad_request(fields: Fields) -> None:
    with pytest.raises(BadRequest, match="Content-Length"):
        read(*fields)


@pytest.mark.parametrize(
    ("length", "sent"),
    [(b"0005", b"5"), (b"00", b"0"), (b"0", b"0"), (b"50", b"50"), (b"0000000000000000012", b"12")],
)
def test_a_length_is_forwarded_without_leading_zeros(length: bytes, sent: bytes) -> None:
    head = read((b"A", b"1"), (b"content-LENGTH", length), (b"B", b"2"))
    assert head.body_length == int(sent)
    assert head.fields == b"A: 1\r\ncontent-LENGTH: %b\r\nB: 2\r\n" % sent


@given(st.lists(st.integers(0, 99).map(b"%d".__mod__), min_size=1, max_size=3), st.booleans())
def test_ambiguous_framing_is_always_rejected(lengths: list[bytes], chunked: bool) -> None:
    fields = [(b"content-Length", length) for length in lengths] + [(b"transfer-encoding", b"chunked")] * chunked
    if len(fields) == 1:
        assert read(*fields).body_length == int(lengths[0])
        return
    with pytest.raises(BadRequest, match="Content-Length"):
        read(*fields)


# --- strip, rewrite, inject -----------------------------------------------------------------------


def test_the_head_that_goes_upstream_octet_by_octet() -> None:
    head = read((b"X-B", b"1"), (b"x-a", b"caf\xe9"), (b"Cookie", b""), (b"X-B", b"2"), (b"Content-Length", b"3"))
    heads = UpstreamHeads(host=b"up.example:8443", authorization=KEY, via=b"me")
    assert heads.write(b"PUT /%7e?", head) == (
        b"PUT /%7e? HTTP/1.1\r\nHost: up.example:8443\r\n"
        b"X-B: 1\r\nx-a: caf\xe9\r\nCookie: \r\nX-B: 2\r\nContent-Length: 3\r\n"
        b"Via: 1.1 me\r\nAuthorization: Basic b3Vycw==\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("fields", "host"), [(((b"Host", b"localhost:9000"),), b"localhost:9000"), ((), b"up.example")]
)
def test_the_sandbox_gets_the_callers_host_or_without_one_its_own(
    fields: tuple[tuple[bytes, bytes], ...], host: bytes
) -> None:
    heads = CallersHostHeads(host=b"up.example", authorization=KEY)
    head = read_by(RequestHeads(), *fields, (b"Transfer-Encoding", b"chunked"))
    assert heads.write(b"POST /", head) == (
        b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\nAuthorization: Basic b3Vycw==\r\n\r\n" % host
    )


def test_a_chunked_body_stays_chunked() -> None:
    assert b"Transfer-Encoding: chunked" in sent((b"TRANSFER-ENCODING", b"Chunked"))


@pytest.mark.parametrize("name", NOT_FORWARDED)
def test_hop_by_hop_credential_and_forwarding_fields_are_dropped(name: bytes) -> None:
    assert sent((name, b"theirs"), (name.lower(), b"theirs")) == sent()


@pytest.mark.parametrize(
    "name",
    [
        b"X_HTTP_Method_Override",
        b"Content_Length",
        b"authorization_",
        b"_",
        b"X.Real.IP",
        b"X!Real~IP",
        b"Content.Length",
    ],
)
def test_a_name_that_servers_behind_cgi_read_as_another_is_dropped(name: bytes) -> None:
    """They read `_`, and some `.` and other characters too, as a hyphen."""
    assert sent((name, b"theirs")) == sent()


@pytest.mark.parametrize("name", [b"Origin", b"Referer", b"Sec-Fetch-Site", b"X-Caller", b"X-Pages", b"Host"])
@pytest.mark.parametrize("second", [b"a", b"b"], ids=["equal", "different"])
def test_a_repeated_field_that_decides_is_an_error_that_names_it(name: bytes, second: bytes) -> None:
    """Otherwise the proxy could judge by one of them, and another program by the other."""
    heads = RequestHeads(caller_header=b"x-caller", cost_header=b"x-pages")
    names, values = (name, b"X", name.lower()), (b"a", b"", second)
    with pytest.raises(BadRequest, match=f"more than one {name.decode()} field"):
        heads.read(names, values)


def test_repeated_credentials_are_none() -> None:
    fields = [(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    assert read(*fields[:1]).credentials == b"Bearer a"
    assert read(*fields).credentials is None
    assert sent(*fields) == sent()


def test_a_repeated_request_id_or_expectation_counts_as_the_last_one_or_any() -> None:
    assert read((b"X-Request-Id", b"a"), (b"X-Request-Id", b"b")).request_id == b"b"
    assert read((b"Expect", b"100-continue"), (b"Expect", b"other")).expect_continue


@pytest.mark.parametrize("name", [b"Authorization", b"Content-Length", b"Host"])
def test_connection_cannot_remove_a_field_that_the_request_needs(name: bytes) -> None:
    lines = sent((b"Content-Length", b"3"), (b"Connection", b"close, " + name), (b"connection", name.upper()))
    assert lines == [b"GET /a?b HTTP/1.1", b"Host: up.example", b"Content-Length: 3", b"Authorization: " + KEY]


def test_every_connection_field_names_fields_to_drop() -> None:
    lines = sent(
        (b"Connection", b"X-One"), (b"x-one", b""), (b"X-Two", b""), (b"CONNECTION", b"a ,x-TWO"), (b"X", b"")
    )
    assert lines == [b"GET /a?b HTTP/1.1", b"Host: up.example", b"X: ", b"Authorization: " + KEY]


@given(st.lists(st.tuples(FREE_NAMES, VALUES)))
def test_all_other_fields_pass_in_order_octet_by_octet(fields: Fields) -> None:
    assert read(*fields).fields == b"".join(name + b": " + value + b"\r\n" for name, value in fields)


@given(
    st.lists(st.tuples(st.sampled_from(NOT_FORWARDED) | FREE_NAMES, VALUES)),
    st.lists(st.lists(st.sampled_from([b"Authorization", b"host", b"via", b"close"]) | TOKENS).map(b", ".join)),
)
def test_the_key_is_the_only_credential_and_the_last_line(fields: Fields, options: list[bytes]) -> None:
    lines = sent(*fields, *[(b"Connection", option) for option in options], via=b"me")
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert lines[1] == b"Host: up.example"
    assert lines[-2:] == [b"Via: 1.1 me", b"Authorization: " + KEY]
    assert names.count(b"authorization") == names.count(b"host") == 1
    assert not any(name.startswith(b"x-forwarded-") for name in names)
    assert not {name.lower() for name in HOP_BY_HOP} & set(names)


# --- the response ---------------------------------------------------------------------------------


LOCATION_REWRITE = LocationRewrite(upstream_origin=b"https://up.example", proxy_scheme=b"http://")


def relayed(
    fields: Fields, *added: bytes, status: int = 200, request_id: str = "", host: bytes = b"me:80"
) -> list[bytes]:
    """Returns the field lines of the response that the caller gets."""
    names, values = tuple(name for name, _ in fields), tuple(value for _, value in fields)
    end = b"\r\n".join([*added, b"Connection: close", b"", b""])
    lines = passing_lines(status, names, values, host, LOCATION_REWRITE)
    head = caller_response_head(status, b"OK", names, lines, end, request_id)
    assert head.startswith(b"HTTP/1.1 %d OK\r\n" % status)
    assert head.endswith(b"\r\nConnection: close\r\n\r\n")
    return head[:-4].split(b"\r\n")[1:-1]


def test_the_head_that_the_caller_gets_octet_by_octet() -> None:
    names = (b"Set-Cookie", b"set-cookie", b"X", b"Transfer-Encoding")
    lines = passing_lines(418, names, (b"a", b"b", b"", b"chunked"))
    own = b"%bTransfer-Encoding: chunked\r\n\r\n" % via_field(b"me")
    head = caller_response_head(418, b"I'm a caf\xe9", names, lines, own, "42")
    assert head == (
        b"HTTP/1.1 418 I'm a caf\xe9\r\nSet-Cookie: a\r\nset-cookie: b\r\nX: \r\n"
        b"X-Request-Id: 42\r\nVia: 1.1 me\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_the_upstreams_hop_by_hop_fields_are_dropped(name: bytes) -> None:
    assert relayed([(name, b"x"), (b"A", b"b")]) == [b"A: b"]


def test_fields_that_the_upstreams_connection_field_names_are_dropped() -> None:
    hops = [(b"X-Hop", b"1"), (b"connection", b"x-two"), (b"Connection", b"x-hop, content-length"), (b"X-Two", b"")]
    fields = [*hops, (b"Content-Length", b"3")]
    assert relayed(fields, b"Server-Timing: a") == [b"Content-Length: 3", b"Server-Timing: a"]


@pytest.mark.parametrize(
    "name",
    [
        *(b"Cache-Control", b"Content-Disposition", b"Content-Encoding", b"Content-Language", b"Content-Location"),
        *(b"Content-Range", b"Content-Type", b"DATE", b"X-Request-Id"),
    ],
)
def test_the_upstreams_connection_field_cannot_remove_a_field_that_every_recipient_needs(name: bytes) -> None:
    fields = [(name, b"a"), (b"Connection", b"x-hop, " + name.lower()), (b"connection", name), (b"X-Hop", b"1")]
    assert relayed(fields) == [name + b": a"]


@pytest.mark.parametrize(("name", "dates"), [(b"DATE", [b"theirs"]), (b"Age", [b"ours"])])
def test_a_date_is_added_unless_the_upstream_sent_one(name: bytes, dates: list[bytes]) -> None:
    """RFC 9110 §6.6.1."""
    line = name + b": theirs\r\n"
    head = caller_response_head(200, b"OK", (name,), line, b"\r\n", date_line=b"Date: ours\r\n")
    lines = head.lower().split(b"\r\n")
    assert [line[6:] for line in lines if line.startswith(b"date: ")] == dates


def test_the_upstreams_request_id_replaces_the_proxys() -> None:
    assert relayed([(b"x-request-ID", b"theirs")], request_id="ours") == [b"x-request-ID: theirs"]
    twice = [(b"X-Request-Id", b"1"), (b"X-Request-Id", b"2")]
    assert relayed(twice, request_id="ours") == [b"X-Request-Id: 1", b"X-Request-Id: 2"]


def test_a_response_without_content_has_no_content_length() -> None:
    fields = [(b"Content-Length", b"0"), (b"A", b"b")]
    assert relayed(fields, status=204) == [b"A: b"]
    assert relayed(fields, status=103) == [b"A: b"]
    assert relayed(fields, status=304) == [b"Content-Length: 0", b"A: b"]


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        (b"https://up.example/x?y", b"http://me:80/x?y"),
        (b"HTTPS://Up.Example/x", b"http://me:80/x"),
        (b"https://up.example", b"http://me:80"),
        (b"https://up.example?q", b"http://me:80?q"),
        (b"https://up.example#f", b"http://me:80#f"),
        (b"https://up.example.evil/x", b"https://up.example.evil/x"),
        (b"https://up.example:444/x", b"https://up.example:444/x"),
        (b"https://up.example@evil/", b"https://up.example@evil/"),
        (b"http://up.example/x", b"http://up.example/x"),
        (b"/relative", b"/relative"),
        (
            b"https://bucket.example/signed?to=https://up.example/",
            b"https://bucket.example/signed?to=https://up.example/",
        ),
        (b"", b""),
    ],
)
def test_only_a_location_at_the_upstream_is_rewritten(location: bytes, rewritten: bytes) -> None:
    assert relayed([(b"LOCATION", location)]) == [b"LOCATION: " + rewritten]
    assert (
        relayed([(b"A", location), (b"location", location)] * 2)
        == [
            b"A: " + location,
            b"location: " + rewritten,
        ]
        * 2
    )


def test_without_the_callers_host_a_location_is_unchanged() -> None:
    assert relayed([(b"Location", b"https://up.example/")], host=b"") == [b"Location: https://up.example/"]
    assert passing_lines(103, (b"Location",), (b"https://up.example/",)) == b"Location: https://up.example/\r\n"


@given(st.lists(st.tuples(FREE_NAMES, VALUES)), st.integers(200, 599))
def test_the_upstreams_other_fields_pass_in_order_octet_by_octet(fields: Fields, status: int) -> None:
    assert relayed(fields, status=status) == [name + b": " + value for name, value in fields]


def test_trailers_follow_the_last_chunk() -> None:
    assert chunked_body_end([(b"A", b"1"), (b"b", b"")]) == b"0\r\nA: 1\r\nb: \r\n\r\n"
    assert chunked_body_end([]) == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "name", [b"Transfer-Encoding", b"Content-Length", b"Connection", b"set-cookie", b"Trailer"]
)
def test_a_trailer_that_must_be_a_header_field_is_dropped(name: bytes) -> None:
    """A recipient may merge trailers into the header section."""
    assert chunked_body_end([(name, b"chunked"), (b"A", b"1")]) == b"0\r\nA: 1\r\n\r\n"


def test_each_of_many_names_in_connection_counts_and_costs_no_step_of_its_own() -> None:
    steps = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal steps
        steps += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        names = connection_options(b"a, b,, B ,Cache-Control," * 2000 + b" X-Last")
    finally:
        sys.setprofile(before)
    assert names == {b"", b"a", b"b", b"x-last"}
    assert steps < 100
