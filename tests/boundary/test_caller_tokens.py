"""Authorization of callers by tokens, users of unix sockets, and client certificates."""

import os
import ssl
from base64 import b64encode
from pathlib import Path

import pytest
import trustme

from nanonets_proxy.app.environment import access
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import make_token
from nanonets_proxy.keys.files import read_caller_tokens
from nanonets_proxy.server.peers import name_in
from nanonets_proxy.settings import SettingsError, load_settings, verify_files
from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import OK, ScriptedUpstream, responding

TOKEN, OTHER = make_token(b"t" * 32), make_token(b"o" * 32)
BILLING = str(CallerToken.of("billing", TOKEN))
SEARCH = str(CallerToken.of("search", OTHER))


def bearer(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode()


async def test_with_tokens_configured_a_caller_without_a_valid_token_is_rejected() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens=BILLING) as proxy,
    ):
        for lines in ([], [bearer(OTHER)], [b"Authorization: Basic OnRva2Vu"], [bearer("")], [bearer(TOKEN)] * 2):
            async with await proxy.caller() as caller:
                response = await caller.get(b"/x", *lines)
                assert (response.status, response.json()["code"]) == (401, "unknown_caller")
                assert response.value(b"WWW-Authenticate") == b'Bearer realm="nanonets-proxy"'
        assert upstream.connections == 0


async def test_a_token_names_its_caller_in_the_log_and_is_not_forwarded() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, caller_tokens=f"{BILLING},{SEARCH}") as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x", bearer(TOKEN))).status == 200
            as_basic = b"Authorization: Basic " + b64encode(OTHER.encode() + b":")
            assert (await caller.get(b"/x", as_basic)).status == 200
        assert [event["caller"] for event in log.events("request")] == ["billing", "search"]
        assert TOKEN not in log.text()
    assert not any(token.encode() in request.head for request in upstream.requests for token in (TOKEN, OTHER))


async def test_a_token_is_accepted_wherever_a_client_puts_its_key() -> None:
    user, password = (b64encode(text) for text in (TOKEN.encode() + b":x", b"x:" + TOKEN.encode()))
    plain = b"Authorization: " + TOKEN.encode()
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens=BILLING) as proxy,
        await proxy.caller() as caller,
    ):
        for line in (b"Authorization: Basic " + user, b"Authorization: Basic " + password, bearer(TOKEN), plain):
            assert (await caller.get(b"/x", line)).status == 200


async def test_a_token_in_its_own_header_field_is_accepted_and_removed() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens=BILLING, caller_token_header="X-Proxy-Token") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", b"x-proxy-token: " + TOKEN.encode())).status == 200
        assert not any(line.lower().startswith(b"x-proxy-token") for line in upstream.requests[0].lines)
        assert (await caller.get(b"/x", bearer(TOKEN))).status == 401


async def test_a_changed_token_file_takes_effect_on_the_next_request(tmp_path: Path) -> None:
    file = tmp_path / "callers"
    file.write_text(f"{BILLING}\n")
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens_file=str(file)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", bearer(TOKEN))).status == 200
        authorizer = proxy.proxy._access.authorizer
        assert authorizer is not None
        before = authorizer._callers
        file.write_text("this is no list of tokens\n")
        fault = await proxy.proxy.reload()
        assert fault is not None
        assert fault.startswith(f"{file} cannot be used: line 1: the entry is not NAME sha256:HEX")
        assert (await caller.get(b"/x", bearer(TOKEN))).status == 200, "the previous list stays valid"
        file.write_text(f"{SEARCH}\n")
        await until(lambda: authorizer._callers is not before)
        assert (await caller.get(b"/x", bearer(OTHER))).status == 200
        assert (await caller.get(b"/x", bearer(TOKEN))).status == 401


async def test_a_token_file_that_changes_as_it_is_read_at_start_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> tuple[CallerToken, ...]:
        tokens = read_caller_tokens(path)
        readings.append(path)
        if len(readings) == 1:
            path.write_text(f"{SEARCH}\n")
        return tokens

    readings: list[Path] = []
    file = tmp_path / "callers"
    file.write_text(f"{BILLING}\n")
    monkeypatch.setattr(access, "read_caller_tokens", read)
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens_file=str(file)) as proxy,
        await proxy.caller() as caller,
    ):
        await until(lambda: len(readings) == 2)
        assert (await caller.get(b"/x", bearer(OTHER))).status == 200
        assert (await caller.get(b"/x", bearer(TOKEN))).status == 401


def test_listening_beyond_loopback_requires_networks_or_tokens_and_for_the_admin_listener_networks() -> None:
    load_settings({"listen": ":8080", "caller_tokens": BILLING}, {}, dirs=[], default_config=Path("/none"))
    for flags in ({"listen": ":8080"}, {"admin_listen": ":8081", "caller_tokens": BILLING}):
        with pytest.raises(SettingsError, match="other machines can reach"):
            load_settings(flags, {}, dirs=[], default_config=Path("/none"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"caller_token_header": "X-A"}, "caller_token_header: needs caller_tokens"),
        ({"caller_tokens": BILLING, "caller_tokens_file": "/f"}, "is also set"),
        ({"caller_tokens": BILLING, "caller_header": "X-Team"}, "caller_header: lets callers choose"),
        ({"caller_header": "Authorization"}, "caller_header: Authorization carries credentials, .* in the log"),
        ({"daily_budget": "5", "caller_header": "X-Team"}, "daily_budget: .* lets every caller choose its name"),
        ({"policy": "a: allow * /b", "caller_header": "X-Team"}, "policy: .*choose its name .*use caller_tokens"),
        ({"policy": "127.0.0.2: deny * /b"}, "policy: .*127.0.0.2 is not the name of a caller: write 127.0.0.1,"),
        ({"daily_budget": "2001:db8::5: 5"}, "daily_budget: .* write 2001:db8::/64,"),
        ({"lane_weights": "::1=4"}, "lane_weights: .* write 127.0.0.1,"),
        (
            {"policy": "billing: deny * /b"},
            "policy: no caller can have the name billing .* caller_tokens, callers are",
        ),
        (
            {"daily_budget": "a: 5", "caller_tokens": BILLING},
            "daily_budget: no caller can have the name a .*tokens",
        ),
        (
            {"lane_weights": "10.0.0.7=2", "caller_tokens_file": "/f"},
            "lane_weights: no caller can have the name 10",
        ),
        ({"tls_cert": "/c"}, "tls_cert: needs tls_key"),
        ({"tls_client_ca": "/c"}, "tls_client_ca: needs tls_cert"),
        ({"policy_dry_run": "true"}, "policy_dry_run: needs policy"),
        ({"caller_tokens": f"billing {TOKEN}"}, "caller_tokens: the entry is not NAME sha256:HEX"),
    ],
)
def test_an_incomplete_configuration_is_an_error_at_start(flags: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        load_settings(flags, {}, dirs=[], default_config=Path("/none"))
    assert TOKEN not in str(caught.value.problems)


@pytest.mark.parametrize(
    "flags",
    [
        {"policy": "10.0.0.7: deny * /b,2001:db8::/64: deny * /c", "daily_budget": "unix:uid=70: 3"},
        {"lane_weights": "web=4", "caller_header": "X-Team"},
        {"lane_weights": "billing=4", "daily_budget": "5,billing: 7", "caller_tokens": BILLING},
        {"policy": "later: deny * /b", "caller_tokens_file": "/f"},
        {"policy": "spiffe://a/b: deny * /b", "tls_client_ca": "/c", "tls_cert": "/c", "tls_key": "/c"},
    ],
)
def test_a_rule_may_name_each_caller_that_can_exist(flags: dict[str, str]) -> None:
    load_settings(flags, {}, dirs=[], default_config=Path("/none"))


def test_unusable_files_are_errors_at_start(tmp_path: Path) -> None:
    file = tmp_path / "callers"
    file.write_text("")
    flags = {"caller_tokens_file": str(file), "tls_cert": str(file), "tls_key": str(file)}
    with pytest.raises(SettingsError) as caught:
        verify_files(load_settings(flags, {}, dirs=[], default_config=Path("/none")))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "caller_tokens_file",
        "tls_cert",
        "tls_key",
    ]


# --- users of a unix socket ----------------------------------------------------------------------


@pytest.mark.parametrize(("uid", "status"), [(os.getuid(), 200), (os.getuid() + 1, 403)])
async def test_only_the_named_users_may_call_on_a_unix_socket(tmp_path: Path, uid: int, status: int) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(
            upstream.origin, listen=f"unix:{tmp_path}/s", admin_listen=f"unix:{tmp_path}/a", allow_uids=str(uid)
        ) as proxy,
        await proxy.caller() as caller,
        await RawCaller.connect(proxy.admin_address) as operator,
    ):
        assert (await caller.get(b"/x")).status == status
        assert (await operator.get(b"/livez")).status == status


async def test_a_unix_socket_gets_the_configured_owner_and_mode(tmp_path: Path) -> None:
    owner = f"{os.getuid()}:{os.getgid()}"
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen=f"unix:{tmp_path}/s?mode=0600&owner={owner}"),
    ):
        status = (tmp_path / "s").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o600)


# --- TLS -------------------------------------------------------------------------------------------


class Pki:
    """A certificate authority, and the files that the proxy reads."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.cert, self.key, self.ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self) -> None:
        certificate = self.authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(self.key)
        certificate.cert_chain_pems[0].write_to_path(self.cert)

    def caller(self, *names: str, common_name: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if names or common_name:
            self.authority.issue_cert(*names, common_name=common_name).configure_cert(context)
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def test_an_unusable_file_of_tls_is_named_with_its_fault(pki: Pki, tmp_path: Path) -> None:
    def problem(cert: Path, key: Path, ca: Path) -> str:
        flags = {"tls_cert": str(cert), "tls_key": str(key), "tls_client_ca": str(ca)}
        with pytest.raises(SettingsError) as caught:
            verify_files(load_settings(flags, {}, dirs=[], default_config=Path("/none")))
        return str(caught.value)

    gone = tmp_path / "gone.pem"
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    assert problem(gone, pki.key, pki.ca) == f"tls_cert: {gone} does not exist (flag --tls-cert)"
    assert problem(pki.cert, pki.cert, pki.ca) == f"tls_key: {pki.cert} holds no PEM private key (flag --tls-key)"
    assert problem(pki.cert, pki.key, gone) == f"tls_client_ca: {gone} does not exist (flag --tls-client-ca)"
    assert problem(pki.cert, other, pki.ca) == (f"tls_key: {other} is not the key of {pki.cert} (flag --tls-key)")


def certificate_of(caller: RawCaller) -> bytes:
    found: bytes = caller.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return found


async def test_callers_can_use_tls_and_redirects_keep_the_scheme(pki: Pki) -> None:
    async with ScriptedUpstream() as upstream:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {upstream.origin}/y\r\nContent-Length: 0\r\n\r\n".encode()
        async with (
            running_proxy(upstream.origin, tls_cert=str(pki.cert), tls_key=str(pki.key)) as proxy,
            await RawCaller.connect(proxy.address, pki.caller()) as caller,
        ):
            await caller.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await (await upstream.next_request()).respond(moved)
            assert (await caller.response()).value(b"Location") == b"https://localhost/y"


async def test_new_connections_use_a_new_certificate_and_old_connections_continue(pki: Pki) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, tls_cert=str(pki.cert), tls_key=str(pki.key)) as proxy,
        await RawCaller.connect(proxy.address, pki.caller()) as old,
    ):
        first = certificate_of(old)
        pki.issue()
        assert await proxy.proxy.reload() is None
        async with await RawCaller.connect(proxy.address, pki.caller()) as new:
            assert certificate_of(new) != first
            assert (await new.get(b"/x")).status == 200
        pki.key.write_text("no key")
        assert await proxy.proxy.reload() is not None
        async with await RawCaller.connect(proxy.address, pki.caller()) as newest:
            assert (await newest.get(b"/x")).status == 200, "the previous certificate stays in use"
        assert (await old.get(b"/x")).status == 200


@pytest.mark.parametrize(
    ("names", "common_name", "expected"),
    [
        (("billing.example",), None, "billing.example"),
        ((), "billing", "billing"),
    ],
    ids=["dns", "common_name"],
)
async def test_the_name_in_a_client_certificate_is_the_caller(
    pki: Pki, names: tuple[str, ...], common_name: str | None, expected: str
) -> None:
    files = {"tls_cert": str(pki.cert), "tls_key": str(pki.key), "tls_client_ca": str(pki.ca)}
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, **files) as proxy,
            await RawCaller.connect(proxy.address, pki.caller(*names, common_name=common_name)) as caller,
        ):
            assert (await caller.get(b"/x")).status == 200
        assert [event["caller"] for event in log.events("request")] == [expected]


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://example/a"))}, "spiffe://example/a"),
        ({"subject": ((("countryName", "DE"),), (("commonName", "a"),)), "subjectAltName": ()}, "a"),
        ({"subject": ((("commonName", "a" * 128),),)}, "a" * 128),
        ({"subject": ()}, None),
    ],
    ids=["spiffe", "common_name", "bounded", "nameless"],
)
def test_the_callers_name_is_taken_from_the_uri_then_the_common_name(
    certificate: dict[str, object], name: str | None
) -> None:
    assert name_in(certificate) == name


def test_long_names_with_the_same_beginning_are_different_callers() -> None:
    long = "spiffe://example/" + "a" * 200
    names = [name_in({"subjectAltName": (("URI", long + end),)}) for end in ("", "/b", "/c")]
    assert len({*names}) == 3
    assert all(name is not None and len(name) == 128 and name.startswith(long[:95]) for name in names)


async def test_a_connection_without_a_valid_client_certificate_is_rejected(pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Pki(tmp_path / "other").caller("billing.example")
    pki.authority.configure_trust(stranger)
    files = {"tls_cert": str(pki.cert), "tls_key": str(pki.key), "tls_client_ca": str(pki.ca)}
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, **files) as proxy:
        for context in (pki.caller(), stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                async with await RawCaller.connect(proxy.address, context) as caller:
                    await caller.get(b"/x")  # with TLS 1.3, the rejection arrives after the handshake
        assert upstream.connections == 0


async def test_with_tokens_and_client_certificates_either_is_sufficient(pki: Pki) -> None:
    files = {"tls_cert": str(pki.cert), "tls_key": str(pki.key), "tls_client_ca": str(pki.ca)}
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, caller_tokens=BILLING, **files) as proxy,
    ):
        async with await RawCaller.connect(proxy.address, pki.caller()) as caller:
            assert (await caller.get(b"/x", bearer(TOKEN))).status == 200
            assert (await caller.get(b"/x")).status == 401
        async with await RawCaller.connect(proxy.address, pki.caller("a.example")) as caller:
            assert (await caller.get(b"/x")).status == 200
