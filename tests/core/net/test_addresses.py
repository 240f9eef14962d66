"""Addresses: names, ports, round trips through their text, and malformed text."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.net.addresses import (
    EgressProxy,
    Origin,
    TcpListener,
    UnixListener,
    bracketed,
    is_every_interface,
    is_host_name,
    is_ip_address,
    parse_collector,
    parse_egress_proxy,
    parse_listener,
    parse_origin,
    reachable_host,
)

HOSTS = st.ip_addresses().map(str) | st.from_regex(
    r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,8}){0,2}", fullmatch=True
)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    "host", ["a", "a.b", "A-1.b_c", "_dmarc.example", "1a", "x" * 63, ".".join(["x" * 49] * 5)]
)
def test_a_dns_name_is_recognised(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize(
    "host",
    ["", ".", "a.", ".a", "a..b", "-a", "a-", "1.2.3.4", "1.2.3", "1", "a b", "ä", "x" * 64, "x." * 127 + "xy"],
)
def test_any_other_text_is_not_a_dns_name(host: str) -> None:
    assert not is_host_name(host)


@pytest.mark.parametrize(
    ("host", "reachable"), [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1")]
)
def test_a_listener_on_every_interface_is_reached_on_loopback(host: str, reachable: str) -> None:
    assert reachable_host(host) == reachable
    assert is_every_interface(host) == is_every_interface(f"[{host}]") == (host != reachable)


def test_localhost_and_every_interface_stand_for_an_address_of_each_family() -> None:
    assert TcpListener("localhost", 1).address_pair == (TcpListener("127.0.0.1", 1), TcpListener("::1", 1))
    assert TcpListener("", 1).address_pair == (TcpListener("0.0.0.0", 1), TcpListener("::", 1))
    assert TcpListener("127.0.0.1", 1).address_pair == TcpListener("proxy.local", 1).address_pair == ()
    assert reachable_host("localhost") == "127.0.0.1"


@given(HOSTS, st.integers(0, 65535))
def test_a_listener_parses_from_its_own_text(host: str, port: int) -> None:
    listener = TcpListener(host, port)
    assert parse_listener(str(listener)) == listener


@given(st.integers(0, 0o777))
def test_a_unix_socket_with_any_mode_parses_from_its_own_text(mode: int) -> None:
    listener = UnixListener("/run/x.sock", mode)
    assert parse_listener(str(listener)) == listener
    assert listener.is_local


@given(HOSTS, PORTS)
def test_an_origin_parses_from_its_own_text(host: str, port: int) -> None:
    origin = Origin("https", host, port)
    assert parse_origin(str(origin)) == origin
    assert str(origin) == f"https://{origin.authority}"
    assert origin.authority in origin.authorities
    assert f"{bracketed(host)}:{port}" in origin.authorities


@given(HOSTS, PORTS)
def test_an_egress_proxy_parses_from_its_own_text(host: str, port: int) -> None:
    proxy = EgressProxy(host, port)
    assert parse_egress_proxy(str(proxy)) == proxy


def test_an_egress_proxy_may_have_a_user_without_a_password() -> None:
    proxy = parse_egress_proxy("http://user@proxy:1")
    assert proxy.userinfo == b"user:"
    assert proxy.secrets() == (b"dXNlcjo",)


def test_an_egress_proxy_gets_its_user_and_password_percent_decoded() -> None:
    proxy = parse_egress_proxy("http://Aladdin:open%20sesame@proxy:1")
    assert proxy.authorization() == b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # the example of RFC 7617 §2
    assert proxy.secrets() == (b"QWxhZGRpbjpvcGVuIHNlc2FtZQ", b"open sesame")


def test_an_egress_proxy_without_a_user_gets_no_credentials() -> None:
    proxy = parse_egress_proxy("http://proxy:1")
    assert (proxy.authorization(), proxy.secrets()) == (None, ())


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("", False), ("::", False), ("192.0.2.1", False)],
)
def test_only_a_listener_on_loopback_is_for_this_machine_alone(host: str, is_local: bool) -> None:
    assert TcpListener(host, 1).is_local is is_local


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("8080", "has no port:"),
        ("localhost:", "has no port from 0 to 65535"),
        ("localhost:65536", "has no port from 0 to 65535"),
        ("[127.0.0.1]:1", "has no IPv6 address in its brackets"),
        ("[::g]:1", "has no IPv6 address in its brackets"),
        ("::1:8080", "needs brackets"),
        ("127.0.0.256:1", "has no address or host name"),
        ("unix:socket", "needs an absolute path"),
        (f"unix:/{'s' * 103}", "is too long"),
        ("unix:/s?", "has an option"),
        ("unix:/s?mode=888", "has an option"),
    ],
)
def test_a_malformed_listener_is_rejected_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_listener(text)


def test_a_unix_sockets_path_may_have_103_bytes() -> None:
    path = f"/{'s' * 102}"
    assert parse_listener(f"unix:{path}") == UnixListener(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("https://host:x", "malformed"),
        ("ftp://host", "must start with https:// or http://"),
        ("https:/host", "must start with https:// or http://"),
        ("https://a_b-.example", "has no valid host name"),
        ("https://host:0", "has the port 0"),
        ("https://host/path", "must end after the host and port"),
        ("https://host?", "must end after the host and port"),
        ("https://user@host", "must not have a user name"),
    ],
)
def test_a_malformed_origin_is_rejected_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_origin(text)


def fault_of(parse: Callable[[str], object], text: str) -> ValueError | None:
    try:
        parse(text)
    except ValueError as error:
        return error
    return None


@pytest.mark.parametrize("parse", [parse_listener, parse_origin, parse_egress_proxy])
@given(text=st.text(max_size=40))
def test_any_malformed_text_raises_a_plain_value_error(parse: Callable[[str], object], text: str) -> None:
    assert type(fault_of(parse, text)) in (ValueError, type(None))  # a UnicodeError is a ValueError too


@given(st.from_regex(r"https?://[ -~]{0,30}", fullmatch=True))
def test_plain_http_is_accepted_for_loopback_only(text: str) -> None:
    try:
        origin = parse_origin(text)
    except ValueError:
        return
    assert origin.tls or origin.host == "localhost" or is_ip_address(origin.host)


@pytest.mark.parametrize(
    "text", ["http://app.nanonets.com", "http://10.0.0.1", "http://0.0.0.0", "http://[fd00::1]:80"]
)
def test_plain_http_to_another_host_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="must be https"):
        parse_origin(text)


@pytest.mark.parametrize("parse", [parse_origin, parse_egress_proxy])
@given(
    password=st.from_regex(r"[A-Za-z0-9]{12,20}", fullmatch=True),
    scheme=st.sampled_from(["ftp://", "http://", ""]),
    rest=st.text(max_size=8),
)
def test_no_message_shows_a_password(parse: Callable[[str], object], password: str, scheme: str, rest: str) -> None:
    assert password not in str(fault_of(parse, f"{scheme}user:{password}@{rest}"))


def test_a_collector_of_traces_may_use_plain_http_but_no_user_name() -> None:
    assert str(parse_collector("http://collector.example:4318")) == "http://collector.example:4318"
    with pytest.raises(ValueError, match="must not have a user name"):
        parse_collector("http://user:secret@collector.example:4318")
