"""The peer guard: which peers, methods, hosts and origins are let in."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.peer_guard import PeerGuard
from nanonets_proxy.core.access.peer_guard_policy import PeerGuardPolicy
from nanonets_proxy.core.http.request_head import RequestHead, RequestHeads
from nanonets_proxy.errors import (
    BadRequest,
    ForbiddenHost,
    ForbiddenOrigin,
    ForbiddenPeer,
    MethodNotAllowed,
)

PRIVATE = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
PORT = st.just("") | st.integers(0, 65535).map(":{}".format)


@pytest.fixture
def guard() -> PeerGuard:
    return PeerGuard(PeerGuardPolicy(PRIVATE, ("proxy.example.com", "*.Corp.example", "192.0.2.7", "fd12::1")))


# --- the peer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [None, "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_always_call(peer: str | None) -> None:
    PeerGuard(PeerGuardPolicy()).check_peer(peer)


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "fd12::1%eth0"])
def test_a_named_network_may_call(guard: PeerGuard, peer: str) -> None:
    guard.check_peer(peer)
    guard.check_peer(peer)
    with pytest.raises(ForbiddenPeer):
        PeerGuard(PeerGuardPolicy()).check_peer(peer)


@pytest.mark.parametrize("peer", ["11.0.0.1", "192.168.0.1", "2001:db8::1", "::ffff:11.0.0.1", "", "localhost"])
def test_any_other_peer_is_rejected_every_time(guard: PeerGuard, peer: str) -> None:
    for _ in range(2):
        with pytest.raises(ForbiddenPeer):
            guard.check_peer(peer)


def test_a_rejected_peer_learns_which_setting_has_the_networks() -> None:
    with pytest.raises(ForbiddenPeer, match=r"see the setting admin_allow_from\."):
        PeerGuard(PeerGuardPolicy(PRIVATE, setting="admin_allow_from")).check_peer("11.0.0.1")


def test_any_peer_lets_every_address_in_unless_networks_are_named() -> None:
    PeerGuard(PeerGuardPolicy(any_peer=True)).check_peer("2001:db8::1")
    for policy, peer in (
        (PeerGuardPolicy(PRIVATE, any_peer=True), "11.0.0.1"),
        (PeerGuardPolicy(any_peer=True), "unknown"),
    ):
        with pytest.raises(ForbiddenPeer):
            PeerGuard(policy).check_peer(peer)


def test_on_a_unix_socket_only_the_named_users_may_call() -> None:
    guard = PeerGuard(PeerGuardPolicy(allow_uids=frozenset({7})))
    guard.check_peer(None, 7)
    guard.check_peer("127.0.0.1")
    for uid in (8, None):
        with pytest.raises(ForbiddenPeer):
            guard.check_peer(None, uid)


def test_a_preflight_is_rejected() -> None:
    with pytest.raises(ForbiddenOrigin):
        PeerGuard(PeerGuardPolicy()).check_method("OPTIONS", preflight=True)
    PeerGuard(PeerGuardPolicy()).check_method("GET", preflight=True)


@given(st.ip_addresses())
def test_only_loopback_and_the_named_networks_pass(peer: IPv4Address | IPv6Address) -> None:
    guard = PeerGuard(PeerGuardPolicy(PRIVATE))
    plain = getattr(peer, "ipv4_mapped", None) or peer
    if plain.is_loopback or any(plain in network for network in PRIVATE):
        guard.check_peer(str(peer))
    else:
        with pytest.raises(ForbiddenPeer):
            guard.check_peer(str(peer))


# --- the method --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "TRACK"])
def test_connect_trace_and_track_are_rejected(guard: PeerGuard, method: str) -> None:
    with pytest.raises(MethodNotAllowed, match=method):
        guard.check_method(method)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_every_other_method_passes(guard: PeerGuard, method: str) -> None:
    guard.check_method(method)


@pytest.mark.parametrize("method", ["delete", "Get", "Trace", "track", "connecT", "options", "purge"])
def test_a_known_method_in_another_case_is_malformed(guard: PeerGuard, method: str) -> None:
    head = RequestHeads().read((b"Host",), (b"localhost",))
    with pytest.raises(BadRequest, match=method.upper()):
        guard.check_request(method, head)


def test_an_unknown_method_may_have_any_case(guard: PeerGuard) -> None:
    guard.check_method("Frobnicate")


# --- the Host ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"localhost",
        b"LOCALHOST:8080",
        b"localhost.",
        b"nanonets-proxy:8080",
        b"nanonets-proxy.tools.svc",
        b"nanonets-proxy.tools.svc.cluster.local:80",
        b"host.docker.internal",
        b"printer.local",
        b"x.localhost",
        b"127.8.9.10",
        b"[::1]:8080",
        b"10.1.2.3:8080",
        b"[fd12:0::1]",
        b"192.0.2.7",
        b"proxy.example.com",
        b"Proxy.Example.com.:8080",
        b"a.corp.example",
        b"a.b.CORP.example:1",
    ],
)
def test_a_host_name_that_no_stranger_can_register_passes(guard: PeerGuard, host: bytes) -> None:
    guard.check_host(host, "10.1.2.3")
    guard.check_host(host, "10.1.2.3")


LOOPBACK = ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = ["10.1.2.3", "fe80::1%eth0", None]


@pytest.mark.parametrize("own", LOOPBACK)
@pytest.mark.parametrize(
    "host",
    [
        *(
            b"localhost",
            b"LOCALHOST:8080",
            b"localhost.",
            b"a.localhost:1",
            b"127.0.0.1",
            b"127.9.9.9:80",
            b"[::1]:80",
        ),
        *(b"host.docker.internal", b"host.containers.internal:8080", b"proxy.example.com", b"a.corp.example", b""),
    ],
)
def test_on_loopback_a_name_that_no_neighbour_can_claim_passes(guard: PeerGuard, host: bytes, own: str) -> None:
    guard.check_host(host, own)


@pytest.mark.parametrize("own", LOOPBACK)
@pytest.mark.parametrize(
    "host",
    [
        *(
            b"evil.local",
            b"evil.internal",
            b"evil.svc",
            b"evil.svc.cluster.local",
            b"evil",
            b"wpad",
            b"evil.default",
        ),
        *(b"docker.internal", b"evil.home.arpa", b"10.9.8.7", b"203.0.113.9:80", b"[2001:db8::1]"),
    ],
)
def test_on_loopback_a_name_that_a_neighbour_can_claim_is_rejected(guard: PeerGuard, host: bytes, own: str) -> None:
    with pytest.raises(ForbiddenHost):
        guard.check_host(host, own)


@pytest.mark.parametrize("own", [*LOOPBACK, *ELSEWHERE])
@pytest.mark.parametrize(
    "host",
    [
        *(b"0.0.0.0", b"0.0.0.0:8080", b"[::]", b"[::ffff:7f00:1]", b"[::ffff:127.0.0.1]:8080", b"[::7f00:1]"),
        *(b"127.0.0.1%evil.com", b"evil.com%00.local", b"evil.com%00.corp.example", b"localhost%2eevil.com"),
        *(
            b"[::1%25lo]",
            b"[fe80::1%25eth0]",
            b"127.0.0.01",
            b"0x7f.1",
            b"2130706433",
            b"localhost..",
            b"a,.localhost",
        ),
    ],
)
def test_a_host_that_browsers_or_programs_read_otherwise_is_rejected(
    guard: PeerGuard, host: bytes, own: str | None
) -> None:
    with pytest.raises(ForbiddenHost):
        guard.check_host(host, own)


def test_an_address_as_host_must_be_the_connections_own_address() -> None:
    guard = PeerGuard(PeerGuardPolicy())
    for own, host in (
        ("10.1.2.3", b"10.1.2.3:80"),
        ("fe80::1%eth0", b"[FE80:0::1]"),
        ("::ffff:10.1.2.3", b"10.1.2.3"),
    ):
        guard.check_host(host, own)
        for other in ("10.1.2.4", "127.0.0.1", None):
            with pytest.raises(ForbiddenHost):
                guard.check_host(host, other)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"proxy.example.com.evil.example",
        b"sub.proxy.example.com",
        b"corp.example",
        b"evilcorp.example",
        b"app.nanonets.com",
        b"127.1",
        b"[evil.example]",
        b"[]",
        b"evil.example:80:localhost",
        b"ev\xefl.example",
        b"user@localhost",
    ],
)
def test_any_other_host_name_is_rejected_every_time(guard: PeerGuard, host: bytes) -> None:
    for _ in range(2):
        with pytest.raises(ForbiddenHost):
            guard.check_host(host)


PRIVATE_NAMES = [
    "nanonets-proxy.default",
    "nanonets-proxy.team-a:8080",
    "Proxy.Staging.",
    "proxy.shop_default",
    "pod-0.proxy.default",
    "proxy.ns1",
    "proxy.1ns",
    "proxy.home.arpa",
    "proxy.test:80",
]


@pytest.mark.parametrize("host", PRIVATE_NAMES)
def test_a_name_of_a_private_network_passes_only_beyond_loopback(host: str) -> None:
    guard = PeerGuard(PeerGuardPolicy())
    guard.check_host(host.encode(), "10.1.2.3")
    with pytest.raises(ForbiddenHost, match="add it to the setting allowed_hosts"):
        guard.check_host(host.encode(), "127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        b"evil.com",
        b"evil.tools",  # a namespace may be called like a top-level domain
        b"evil.DEV:8080",
        b"evil.prod.",
        b"evil.xn--p1ai",
        b"evil.arpa",
        b"home.arpa",
        b"evil.example",
        b"127.1",
        b"evil.0x7f",
        b"evil..default",
        b"evil.default:80:81",
        b"user@evil.default",
        b"ev\xefl.default",
        b".default",
    ],
)
def test_a_name_that_can_be_registered_is_no_name_of_a_private_network(host: bytes) -> None:
    with pytest.raises(ForbiddenHost):
        PeerGuard(PeerGuardPolicy()).check_host(host, "10.1.2.3")


@pytest.mark.parametrize(("host", "named"), [(b"10.9.9.9:80", "10.9.9.9"), (b"[FD00::7]:80", "[fd00::7]")])
def test_a_rejection_of_an_address_names_it(host: bytes, named: str) -> None:
    """Behind NAT, the operator must allow the address that callers use."""
    with pytest.raises(ForbiddenHost, match="add it to the setting allowed_hosts") as caught:
        PeerGuard(PeerGuardPolicy()).check_host(host, "172.17.0.2")
    assert caught.value.details == {"host": named}


def test_a_rejection_names_the_host_and_the_setting() -> None:
    with pytest.raises(ForbiddenHost) as caught:
        PeerGuard(PeerGuardPolicy()).check_host(b"Proxy.Corp.com:8080")
    assert caught.value.message == (
        "proxy.corp.com is not a name of the proxy. If it should be, add it to the setting allowed_hosts."
    )
    assert caught.value.details == {"host": "proxy.corp.com"}
    PeerGuard(PeerGuardPolicy(allowed_hosts=(caught.value.details["host"],))).check_host(b"Proxy.Corp.com:8080")


@given(LABEL, st.sampled_from(["com", "example", "io", "co.uk"]), PORT)
def test_a_host_name_that_can_be_registered_is_rejected(label: str, suffix: str, port: str) -> None:
    with pytest.raises(ForbiddenHost):
        PeerGuard(PeerGuardPolicy()).check_host(f"{label}.{suffix}{port}".encode())


@given(st.ip_addresses(), PORT)
def test_any_other_address_as_host_is_rejected(address: IPv4Address | IPv6Address, port: str) -> None:
    text = f"[{address}]" if address.version == 6 else str(address)
    if getattr(address, "ipv4_mapped", None) is None:
        PeerGuard(PeerGuardPolicy()).check_host(f"{text}{port}".encode(), str(address))
    if not address.is_loopback and str(address) != "10.1.2.3":
        with pytest.raises(ForbiddenHost):
            PeerGuard(PeerGuardPolicy()).check_host(f"{text}{port}".encode(), "10.1.2.3")


def test_the_number_of_remembered_peers_is_bounded(guard: PeerGuard) -> None:
    for number in range(1030):
        guard.check_peer(f"10.1.{number // 256}.{number % 256}")
    assert len(guard._accepted_peers) == 1024
    guard.check_peer("10.1.4.5")


def test_the_number_of_remembered_hosts_is_bounded(guard: PeerGuard) -> None:
    for number in range(2000):
        guard.check_host(b"host%d" % number)
    guard.check_host(b"host1999")
    assert sum(map(len, guard._accepted_hosts.values())) == 1024


# --- the page of the request -------------------------------------------------------------------


@pytest.mark.parametrize("site", [None, b"none", b"same-origin"])
@pytest.mark.parametrize("origin", [None, b"http://localhost:8080", b"https://localhost:8080"])
def test_a_page_of_the_proxy_itself_may_call(guard: PeerGuard, site: bytes | None, origin: bytes | None) -> None:
    guard.check_origin(origin, site, b"localhost:8080")


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (None, b"cross-site"),
        (None, b"same-site"),
        (b"http://localhost:8080", b"cross-site"),
        (b"http://localhost:3000", None),
        (b"http://localhost", None),
        (b"http://evil.example", b"same-origin"),
        (b"null", None),
        (b"", None),
        (b"localhost:8080", None),
        (b"ws://localhost:8080", None),
    ],
)
def test_a_page_of_another_site_may_not_call(guard: PeerGuard, origin: bytes | None, site: bytes | None) -> None:
    with pytest.raises(ForbiddenOrigin):
        guard.check_origin(origin, site, b"localhost:8080")


@pytest.mark.parametrize(
    ("referer", "passes"),
    [
        *((None, True), (b"", True), (b"/page", True), (b"http://localhost:8080/a?b=c", True)),
        *((b"https://localhost:8080", True), (b"http://localhost:8080?x", True), (b"http://localhost/", False)),
        *((b"http://evil.example/", False), (b"http://localhost:8080.evil.example/", False)),
        *((b"http://localhost:8080@evil.example/", False), (b"about:client", False), (b"x", False)),
    ],
)
def test_a_referer_of_another_origin_counts_as_the_page(
    guard: PeerGuard, referer: bytes | None, passes: bool
) -> None:
    fields = [(b"Host", b"localhost:8080")] + ([] if referer is None else [(b"Referer", referer)])
    if passes:
        guard.check_request("GET", head(*fields))
    else:
        with pytest.raises(ForbiddenOrigin):
            guard.check_request("GET", head(*fields))


# --- the request as a whole --------------------------------------------------------------------


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHeads().read(tuple(name for name, _ in fields), tuple(value for _, value in fields))


def test_a_request_with_a_local_host_and_its_own_origin_passes(guard: PeerGuard) -> None:
    for _ in range(2):
        guard.check_request("GET", head((b"Host", b"localhost:80")))
    guard.check_request("GET", head((b"Host", b"localhost:80"), (b"Origin", b"http://localhost:80")))
    guard.check_request("GET", head((b"Host", b"localhost:80"), (b"Sec-Fetch-Site", b"none")))


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("TRACE", [], MethodNotAllowed),
        ("OPTIONS", [(b"Access-Control-Request-Method", b"PUT")], ForbiddenOrigin),
        ("GET", [(b"Origin", b"http://evil.example")], ForbiddenOrigin),
        ("GET", [(b"Sec-Fetch-Site", b"cross-site")], ForbiddenOrigin),
    ],
)
def test_each_check_applies_to_a_request(
    guard: PeerGuard, method: str, fields: list[tuple[bytes, bytes]], error: type[Exception]
) -> None:
    with pytest.raises(error):
        guard.check_request(method, head((b"Host", b"localhost"), *fields))


@pytest.mark.parametrize("authority", ["evil.example", "caf\udce9.example", "caf\xe9.example"])
def test_the_authority_of_an_absolute_target_replaces_the_host(guard: PeerGuard, authority: str) -> None:
    with pytest.raises(ForbiddenHost):
        guard.check_request("GET", head((b"Host", b"localhost")), authority)
    guard.check_request("GET", head((b"Host", b"evil.example")), "localhost")
