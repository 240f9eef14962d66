"""The access rules and the daily budget, in the running proxy."""

import pytest

from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding


async def test_a_denied_request_is_rejected_and_the_connection_stays_usable() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, policy="allow GET /api/v4/**,deny * /api/v4/secret/**") as proxy,
        await proxy.caller() as caller,
    ):
        for method, path in ((b"POST", b"/api/v4/x"), (b"GET", b"/api/v4/secret/1"), (b"GET", b"/api/v4/%2e%2e/x")):
            await caller.send(request(method, path))
            response = await caller.response()
            assert (response.status, response.json()["code"]) == (403, "forbidden_by_policy")
        assert upstream.connections == 0
        assert (await caller.get(b"/api/v4/x")).status == 200


async def test_the_raw_path_is_forwarded_although_the_policy_checks_the_normalized_path() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, policy="allow GET /api/workflows/*") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/%61pi/workflows/a%20b/?x=%2F..%2F")).status == 200
        assert upstream.requests[0].lines[0] == b"GET /%61pi/workflows/a%20b/?x=%2F..%2F HTTP/1.1"


async def test_read_only_rejects_a_post_and_a_method_override_field() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, read_only=True) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", b"X-HTTP-Method-Override: DELETE")).status == 403
        assert (await caller.get(b"/x")).status == 200
        assert (await caller.post(b"/x", b"body")).json()["details"]["reason"] == "read_only"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("method", [b"delete", b"Delete", b"Trace", b"track"])
async def test_a_known_method_in_another_case_does_not_reach_the_upstream(method: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, policy="deny DELETE /**") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(method, b"/x"))
        response = await caller.response()
        assert (response.status, response.json()["code"]) == (400, "bad_request")
        assert method.decode().upper() in response.json()["message"]
        assert upstream.connections == 0


async def test_a_dry_run_logs_but_does_not_reject() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(
                upstream.origin, read_only=True, daily_budget="0", policy="deny GET /a", policy_dry_run=True
            ) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.post(b"/x", b"body")).status == 200
            assert (await caller.get(b"/a")).status == 200
        reasons = [event["reason"] for event in log.events("policy_would_reject")]
    assert reasons == ["read_only", "daily_budget", "rule: deny GET /a", "daily_budget"]


@pytest.mark.usefixtures("one_day")
async def test_a_caller_beyond_its_daily_budget_gets_retry_after() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, daily_budget="1") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        response = await caller.get(b"/x")
        assert (response.status, response.json()["code"]) == (429, "daily_budget_used_up")
        assert 1 <= int(response.value(b"Retry-After")) <= 86_400


@pytest.mark.parametrize("setting", [{}, {"server_timing": False}])
async def test_without_access_settings_there_is_no_authorizer(setting: dict[str, bool]) -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, **setting) as proxy:
        assert proxy.proxy._access.authorizer is None
