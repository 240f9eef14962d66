"""The admin listener from other machines: only with a token, if tokens are set."""

from base64 import b64encode

import pytest

from nanonets_proxy.admin import access
from nanonets_proxy.admin.access import AdminAccess
from nanonets_proxy.core.access.caller_tokens import CallerToken
from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from nanonets_proxy.server.peers import Peer
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream

TOKEN = make_token(b"\x01" * TOKEN_BYTES)
OTHER_TOKEN = make_token(b"\x02" * TOKEN_BYTES)
SETTING = str(CallerToken.of("prometheus", TOKEN))
BEARER = f"Bearer {TOKEN}".encode()
BASIC = b"Basic " + b64encode(f"{TOKEN}:".encode())


def _peer(address: str | None) -> Peer:
    return Peer("name", address)


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3", "no address"])
@pytest.mark.parametrize(
    ("credentials", "is_permitted"),
    [
        (BEARER, True),
        (BASIC, True),
        (f"Bearer {OTHER_TOKEN}".encode(), False),
        (TOKEN.encode(), True),
        (OTHER_TOKEN.encode(), False),
        (b"", False),
        (None, False),
    ],
)
def test_another_machine_needs_the_token(address: str, credentials: bytes | None, is_permitted: bool) -> None:
    own = AdminAccess([CallerToken.of("prometheus", TOKEN)])
    assert own.permits(_peer(address), credentials) is is_permitted


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None])
def test_this_machine_needs_no_token(address: str | None) -> None:
    assert AdminAccess([CallerToken.of("prometheus", TOKEN)]).permits(_peer(address), None)


def test_without_tokens_nobody_needs_one_and_tokens_can_be_replaced() -> None:
    own = AdminAccess([])
    assert own.permits(_peer("10.1.2.3"), None)
    own.use([CallerToken.of("a", TOKEN), CallerToken.of("b", TOKEN)])
    assert not own.permits(_peer("10.1.2.3"), None)
    assert own.permits(_peer("10.1.2.3"), BEARER)


@pytest.mark.parametrize("path", [b"/", b"/status", b"/events", b"/metrics", b"/reload", b"/missing"])
async def test_without_the_token_another_machine_gets_a_401(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_is_local", lambda _: False)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, admin_tokens=SETTING) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        response = await admin.get(path)
        assert (response.status, response.json()["code"]) == (401, "unknown_caller")
        assert response.value(b"WWW-Authenticate") == b'Bearer realm="nanonets-proxy", Basic realm="nanonets-proxy"'


async def test_with_the_token_prometheus_scrapes_from_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_is_local", lambda _: False)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, admin_tokens=SETTING) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        await admin.send(request(b"GET", b"/metrics", b"Authorization: " + BEARER))
        response = await admin.response()
        assert response.status == 200
        assert b"nanonets_proxy_in_flight" in response.body


async def test_a_health_check_needs_no_token_and_sees_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_is_local", lambda _: False)
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, admin_tokens=SETTING) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        assert (await admin.get(b"/livez")).status == 200
        response = await admin.get(b"/readyz")
        assert (response.status, response.json()) == (200, {"status": "ready"})
        await admin.send(request(b"GET", b"/readyz", b"Authorization: " + BEARER))
        assert "key" in (await admin.response()).json()
        proxy.proxy.announce_drain()
        response = await admin.get(b"/readyz")
        assert (response.status, response.json()) == (503, {"status": "not ready"})
