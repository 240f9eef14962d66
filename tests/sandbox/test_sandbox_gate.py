"""Keys, limits, latency, failures and counters, seen over a real socket."""

import asyncio
import io

import pytest
from aiohttp import encode_basic_auth

from nanonets_proxy.sandbox import stats as stats_module
from nanonets_proxy.sandbox.middleware import is_authorized
from nanonets_proxy.sandbox.policy import HintStyle, LimitKind, LimitRule
from nanonets_proxy.sandbox.responses import rate_limited
from nanonets_proxy.sandbox.stats import CallCounts

WORKFLOWS = "/api/v4/workflows"
HOUR = LimitRule(2, 3600)


async def stats_of(http, base):
    return await (await http.get(f"{base}/sandbox/stats")).json()


async def until_in_flight(http, base):
    for _ in range(1000):
        if (await stats_of(http, base))["in_flight"]:
            return
    pytest.fail("the call never got in flight")


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
        ["Basic a2V5"],  # the key without a colon behind it
        ["Basic k\udce9y"],
        [encode_basic_auth("key", "")] * 2,
    ],
)
def test_credentials_that_are_not_exactly_right_are_wrong(fields):
    assert not is_authorized(fields, ("key", "other"))


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_any_accepted_key_with_an_empty_password_is_right(scheme):
    assert is_authorized([encode_basic_auth("other", "").replace("Basic", scheme)], ("key", "other"))


async def test_a_call_without_the_key_gets_the_documented_401(start, http):
    base = await start(limit=HOUR)
    response = await http.get(base + WORKFLOWS, headers={"Authorization": "Basic eDo="})
    assert response.status == 401
    assert await response.json() == {
        "code": "unauthorized",
        "message": "Invalid API key",
        "details": {"error": "Authentication failed"},
    }
    counts = (await stats_of(http, base))["calls"]["GET /api/v4/workflows"]
    assert (counts["unauthorized"], counts["admitted"]) == (1, 0)


async def test_a_sandbox_without_keys_accepts_none(start, http):
    base = await start(api_keys=())
    assert (await http.get(base + WORKFLOWS)).status == 401


async def test_a_call_beyond_the_limit_gets_the_documented_429(start, http):
    base = await start(limit=HOUR, limit_kind=LimitKind.SLIDING_WINDOW)
    responses = [await http.get(base + WORKFLOWS) for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    body = await responses[2].json()
    assert 3590 <= body["details"].pop("retry_after") <= 3600
    assert body == {"code": "rate_limit_exceeded", "message": "Rate limit exceeded", "details": {}}
    assert "Retry-After" not in responses[2].headers
    stats = await stats_of(http, base)
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
def test_the_hint_stands_where_the_style_says(hint, in_body, in_header):
    response = rate_limited(12.2, hint)
    assert (b'"retry_after": 13}' in response.body) is in_body
    assert (response.headers.get("Retry-After") == "13") is in_header


def test_a_delay_below_a_second_keeps_its_milliseconds_in_the_body():
    response = rate_limited(0.1501, HintStyle.BOTH)
    assert b'"retry_after": 0.151}' in response.body
    assert response.headers["Retry-After"] == "1"


async def test_predict_posts_are_limited_per_model_and_nothing_else_of_v2(start, http):
    base = await start(limit=LimitRule(1, 3600), limit_kind=LimitKind.SLIDING_WINDOW)
    form = {"urls": "https://files.invalid/a.pdf"}

    async def predict(model, call):
        return (await http.post(f"{base}/api/v2/OCR/Model/{model}/{call}", data=form)).status

    assert await predict("m1", "LabelUrls/") == 200
    assert await predict("m1", "LabelUrls") == 429
    assert await predict("m1", "LabelFile/?async=true") == 429
    assert await predict("m2", "LabelUrls/") == 200
    assert await predict("m1", "UploadUrls/") == 200
    assert (await http.get(base + WORKFLOWS)).status == 200


async def test_a_concurrency_limit_frees_its_place_when_the_call_ends(start, http):
    base = await start(limit=LimitRule(1, 1), limit_kind=LimitKind.CONCURRENCY, latency_s=0.1)
    together = await asyncio.gather(*(http.get(base + WORKFLOWS) for _ in range(3)))
    assert sorted(response.status for response in together) == [200, 429, 429]
    assert (await http.get(base + WORKFLOWS)).status == 200
    assert (await stats_of(http, base))["max_in_flight"] == 1


async def test_latency_is_added_while_the_call_is_in_flight(start, http):
    base = await start(latency_s=0.2)
    began_s = asyncio.get_running_loop().time()
    call = asyncio.create_task(http.get(base + WORKFLOWS))
    await until_in_flight(http, base)
    await call
    assert asyncio.get_running_loop().time() - began_s >= 0.2
    assert (await stats_of(http, base))["in_flight"] == 0


async def test_failures_are_the_same_for_the_same_seed(start, http):
    async def run(seed):
        base = await start(failure_rate=0.5, seed=seed)
        return [(await http.get(base + WORKFLOWS)).status for _ in range(40)]

    first = await run(7)
    assert set(first) == {200, 503}
    assert await run(7) == first
    assert await run(8) != first


async def test_counters_tell_equal_requests_from_different_ones(start, http):
    base = await start()
    for description in ("a", "a", "b"):
        await http.post(base + WORKFLOWS, json={"description": description})
    for name in ("a", "a", "b"):
        await http.post(f"{base}/api/v2/OCR/Model/m/LabelFile", data={"file": io.BytesIO(name.encode())})
    calls = (await stats_of(http, base))["calls"]
    assert calls["POST /api/v4/workflows"]["distinct"] == 2
    assert calls["POST /api/v2/OCR/Model/{model}/LabelFile"]["distinct"] == 2
    assert calls["POST /api/v2/OCR/Model/{model}/LabelFile"]["admitted"] == 3


async def test_a_reset_forgets_documents_counters_and_the_limit(start, http):
    base = await start(limit=LimitRule(1, 3600), limit_kind=LimitKind.SLIDING_WINDOW)
    await http.post(base + WORKFLOWS, json={"description": "old"})
    assert (await http.get(base + WORKFLOWS)).status == 429
    assert (await http.post(f"{base}/sandbox/reset", headers={"Authorization": ""})).status == 204
    assert (await stats_of(http, base))["calls"] == {}
    assert await (await http.get(base + WORKFLOWS)).json() == {"workflows": []}


async def test_a_call_in_flight_across_a_reset_leaves_the_new_counters_alone(start, http):
    base = await start(limit=LimitRule(1, 1), limit_kind=LimitKind.CONCURRENCY, latency_s=0.2)
    call = asyncio.create_task(http.get(base + WORKFLOWS))
    await until_in_flight(http, base)
    await http.post(f"{base}/sandbox/reset")
    assert (await call).status == 200
    stats = await stats_of(http, base)
    assert (stats["in_flight"], stats["admitted"]) == (0, 0)


def test_the_set_of_distinct_requests_is_bounded(monkeypatch):
    monkeypatch.setattr(stats_module, "MAX_DIGESTS", 2)
    counts = CallCounts()
    for digest in (b"a", b"b", b"c"):
        counts.saw(digest)
    assert counts.to_json()["distinct"] == 2
