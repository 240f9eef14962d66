"""A key goes to the upstream of its own environment alone, also after redirects and foreign targets."""

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey, KeyMisdirected
from nanonets_proxy.core.keys.audience import Audience, AuthScheme
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.keys.source import BoundSource, EnvironmentKey, InitialKeys
from support.held_upstream import HeldUpstream
from support.log_capture import captured_log
from support.proxy_harness import KEY, running_proxy
from support.raw_caller import request
from support.raw_upstream import RawUpstream, ok, responding

BEARER = b"Authorization: Bearer " + KEY.encode()


async def test_bearer_sends_the_key_as_a_bearer_token_in_the_last_field() -> None:
    async with (
        HeldUpstream() as upstream,
        running_proxy(upstream.origin, auth="bearer") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/extract", b"Authorization: Basic eDo=", b"Accept: */*"))
        await upstream.respond(ok())
        await caller.response()
    (head,) = upstream.heads
    assert head.split(b"\r\n")[-3] == BEARER
    assert head.count(b"Authorization") == 1


@pytest.mark.parametrize("echo", [KEY, f"Bearer {KEY}", f"Authorization: Bearer {KEY}"])
async def test_an_echo_of_the_bearer_token_is_blanked(echo: str) -> None:
    response = ok(echo.encode(), b"X-Echo: " + echo.encode(), status=b"400 Bad Request")
    with captured_log() as log:
        async with (
            RawUpstream(responding(response)) as upstream,
            running_proxy(upstream.origin, auth="bearer") as proxy,
            await proxy.caller() as caller,
        ):
            received = await caller.get(b"/extract")
        assert KEY.encode() not in received.head + received.body
        assert KEY not in log.text()


@pytest.mark.parametrize("target", [b"http://127.0.0.1:%d/stolen", b"http://extraction-api.nanonets.com:%d/stolen"])
async def test_no_absolute_target_leads_the_key_to_another_upstream(target: bytes) -> None:
    async with (
        HeldUpstream() as other,
        RawUpstream(responding(ok())) as own,
        running_proxy(own.origin, auth="bearer") as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(target % other.port)
    assert response.status in (200, 400, 403)
    assert (other.accepted, other.heads) == (0, [])


async def test_no_redirect_leads_the_key_to_another_upstream() -> None:
    async with HeldUpstream() as other:
        moved = ok(b"", b"Location: %b/stolen" % str(other.origin).encode(), status=b"307 Temporary Redirect")
        async with (
            RawUpstream(responding(moved)) as own,
            running_proxy(own.origin, auth="bearer") as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/extract")).status == 307
        assert other.accepted == 0


def test_keys_that_were_read_for_one_upstream_are_unusable_for_another() -> None:
    """A defect of the composition would mix up environments: then the key is not sent, rather than misdirected."""
    own = Audience(Origin("https", "extraction-api.nanonets.com", 443), AuthScheme.BEARER)
    source = BoundSource(EnvironmentKey(ApiKey.parse(KEY, "test")), own)
    keys = InitialKeys(source, source.read())
    with pytest.raises(KeyMisdirected):
        keys.keys[0].key.authorization(Origin("https", "app.nanonets.com", 443))
    assert keys.keys[0].key.authorization(own.origin) == BEARER.removeprefix(b"Authorization: ")
