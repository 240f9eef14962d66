"""Keys, limits, latency, failures and counters, over a real socket."""

import asyncio
import io

import pytest
from aiohttp import encode_basic_auth

from nanonets_proxy.sandbox import stats as stats_module
from nanonets_proxy.sandbox.middleware import is_authorized
from nanonets_proxy.sandbox.policy import HintStyle, LimitKind, LimitRule
from nanonets_proxy.sandbox.responses import rate_limited
from nanonets_proxy.sandbox.stats import OperationCounts

WORKFLOWS = "/api/v4/workflows"
HOUR = LimitRule(2, 3600)


async def stats_of(client):
    return await (await client.get("/sandbox/stats")).json()


async def until_in_flight(client):
    for _ in range(1000):
        if (await stats_of(client))["in_flight"]:
            return
    pytest.fail("no request got in flight")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [encode_basic_auth("wrong", "")],
        [encode_basic_auth("", "")],
        [encode_basic_auth("key", "password")],
        [encode_basic_auth("key", "").replace("Basic", "Bearer")],
        ["Basic"],
        ["Basic !!!"],
        ["Basic ===="],
        ["Basic a2V5"],  # the key without its colon
        ["Basic k\udce9y"],
        [encode_basic_auth("key", "")] * 2,
    ],
)
def test_malformed_or_wrong_credentials_are_rejected(fields):
    assert not is_authorized(fields, ("key", "other"))


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_any_accepted_key_with_an_empty_password_is_valid(scheme):
    assert is_authorized([encode_basic_auth("other", "").replace("Basic", scheme)], ("key", "other"))


async def test_a_request_without_the_key_gets_the_documented_401(sandbox):
    client = await sandbox(limit=HOUR)
    response = await client.get(WORKFLOWS, headers={"Authorization": "Basic eDo="})
    assert response.status == 401
    assert await response.json() == {
        "code": "unauthorized",
        "message": "Invalid API key",
        "details": {"error": "Authentication failed"},
    }
    counts = (await stats_of(client))["calls"]["GET /api/v4/workflows"]
    assert (counts["unauthorized"], counts["admitted"]) == (1, 0)


async def test_a_sandbox_without_keys_accepts_no_request(sandbox):
    client = await sandbox(api_keys=())
    assert (await client.get(WORKFLOWS)).status == 401


async def test_a_request_beyond_the_limit_gets_the_documented_429(sandbox):
    client = await sandbox(limit=HOUR, limit_kind=LimitKind.SLIDING_WINDOW)
    responses = [await client.get(WORKFLOWS) for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    body = await responses[2].json()
    assert 3590 <= body["details"].pop("retry_after") <= 3600
    assert body == {"code": "rate_limit_exceeded", "message": "Rate limit exceeded", "details": {}}
    assert "Retry-After" not in responses[2].headers
    stats = await stats_of(client)
    assert (stats["admitted"], stats["refused"]) == (2, 1)


@pytest.mark.parametrize(
    ("hint", "in_body", "in_header"),
    [
        (HintStyle.BODY, True, False),
        (HintStyle.HEADER, False, True),
        (HintStyle.BOTH, True, True),
        (HintStyle.NONE, False, False),
    ],
)
def test_the_retry_delay_is_where_the_hint_style_says(hint, in_body, in_header):
    response = rate_limited(12.2, hint)
    assert ('"retry_after": 13}' in (response.text or "")) is in_body
    assert (response.headers.get("Retry-After") == "13") is in_header


def test_a_delay_below_a_second_keeps_its_milliseconds_in_the_body():
    response = rate_limited(0.1501, HintStyle.BOTH)
    assert '"retry_after": 0.151}' in (response.text or "")
    assert response.headers["Retry-After"] == "1"


async def test_the_documented_limit_covers_v2_predict_posts_only_and_counts_them_per_model(sandbox):
    client = await sandbox(limit=LimitRule(1, 3600), limit_kind=LimitKind.SLIDING_WINDOW)
    form = {"urls": "https://files.invalid/a.pdf"}

    async def predict(model, operation):
        return (await client.post(f"/api/v2/OCR/Model/{model}/{operation}", data=form)).status

    assert await predict("m1", "LabelUrls/") == 200
    assert await predict("m1", "LabelUrls") == 429
    assert await predict("m1", "LabelFile/?async=true") == 429
    assert await predict("m2", "LabelUrls/") == 200
    assert await predict("m1", "UploadUrls/") == 200
    assert (await client.get(WORKFLOWS)).status == 200


async def test_a_concurrency_limit_frees_its_place_when_the_request_ends(sandbox):
    client = await sandbox(limit=LimitRule(1, 1), limit_kind=LimitKind.CONCURRENCY, latency_s=0.1)
    together = await asyncio.gather(*(client.get(WORKFLOWS) for _ in range(3)))
    assert sorted(response.status for response in together) == [200, 429, 429]
    assert (await client.get(WORKFLOWS)).status == 200
    assert (await stats_of(client))["max_in_flight"] == 1


async def test_a_request_is_in_flight_during_the_added_latency(sandbox):
    client = await sandbox(latency_s=0.2)
    began_s = asyncio.get_running_loop().time()
    call = asyncio.create_task(client.get(WORKFLOWS))
    await until_in_flight(client)
    await call
    assert asyncio.get_running_loop().time() - began_s >= 0.2
    assert (await stats_of(client))["in_flight"] == 0


async def test_the_same_seed_gives_the_same_failures(sandbox):
    async def run(seed):
        client = await sandbox(failure_rate=0.5, seed=seed)
        return [(await client.get(WORKFLOWS)).status for _ in range(40)]

    first = await run(7)
    assert set(first) == {200, 503}
    assert await run(7) == first
    assert await run(8) != first


async def test_counters_distinguish_different_requests(sandbox):
    client = await sandbox()
    for description in ("a", "a", "b"):
        await client.post(WORKFLOWS, json={"description": description})
    for name in ("a", "a", "b"):
        await client.post("/api/v2/OCR/Model/m/LabelFile", data={"file": io.BytesIO(name.encode())})
    calls = (await stats_of(client))["calls"]
    assert calls["POST /api/v4/workflows"]["distinct"] == 2
    assert calls["POST /api/v2/OCR/Model/{model}/LabelFile"]["distinct"] == 2
    assert calls["POST /api/v2/OCR/Model/{model}/LabelFile"]["admitted"] == 3


async def test_a_reset_clears_documents_counters_and_the_limit(sandbox):
    client = await sandbox(limit=LimitRule(1, 3600), limit_kind=LimitKind.SLIDING_WINDOW)
    await client.post(WORKFLOWS, json={"description": "old"})
    assert (await client.get(WORKFLOWS)).status == 429
    assert (await client.post("/sandbox/reset", headers={"Authorization": ""})).status == 204
    assert (await stats_of(client))["calls"] == {}
    assert await (await client.get(WORKFLOWS)).json() == {"workflows": []}


async def test_a_new_limit_applies_at_once_and_outlives_a_reset(sandbox):
    client = await sandbox(limit=LimitRule(1, 3600), limit_kind=LimitKind.SLIDING_WINDOW)
    await client.get(WORKFLOWS)
    assert (await client.get(WORKFLOWS)).status == 429
    for limit, statuses in (("2/1h", [200, 200, 429]), ("none", [200] * 4), ("1/1h", [200, 429])):
        assert (await client.post("/sandbox/limit", json={"limit": limit})).status == 204
        assert [(await client.get(WORKFLOWS)).status for _ in statuses] == statuses
    assert "1/3600s (sliding)" in await (await client.get("/")).text()
    await client.post("/sandbox/reset")
    assert [(await client.get(WORKFLOWS)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("body", ["", "1/1h", "[]", "{}", '{"limit": 1}', '{"limit": "0/1h"}'])
async def test_an_invalid_new_limit_changes_nothing(sandbox, body):
    client = await sandbox(limit=LimitRule(1, 3600))
    assert (await client.post("/sandbox/limit", data=body)).status == 400
    assert [(await client.get(WORKFLOWS)).status for _ in range(2)] == [200, 429]


async def test_a_request_in_flight_during_a_reset_does_not_change_the_new_counters(sandbox):
    client = await sandbox(limit=LimitRule(1, 1), limit_kind=LimitKind.CONCURRENCY, latency_s=0.2)
    call = asyncio.create_task(client.get(WORKFLOWS))
    await until_in_flight(client)
    await client.post("/sandbox/reset")
    assert (await call).status == 200
    stats = await stats_of(client)
    assert (stats["in_flight"], stats["admitted"]) == (0, 0)


def test_the_set_of_distinct_requests_is_bounded(monkeypatch):
    monkeypatch.setattr(stats_module, "MAX_DIGESTS", 2)
    counts = OperationCounts()
    for digest in (b"a", b"b", b"c"):
        counts.record(digest)
    assert counts.to_json()["distinct"] == 2
