"""The number of series, whatever callers send."""

import math

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nanonets_proxy.core.api.routes import ROUTES
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket
from nanonets_proxy.telemetry.metrics import (
    _COUNTERS,
    _GAUGES,
    MAX_SERIES,
    Metrics,
    combined_registry,
    process_registry,
)
from nanonets_proxy.telemetry.scrape.request_metrics import MOST_CALLERS, RequestMetrics
from nanonets_proxy.telemetry.scrape.scope_metrics import ScopeMetrics
from support.error_classes import VISIBLE
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream
from support.telemetry.finished import Finished

INVENTED = 10_000


def _make(environments: int = 1, gate: Gate | None = None) -> Metrics:
    return Metrics(
        lambda: dict.fromkeys((*_GAUGES, *_COUNTERS), 0.0),
        lambda most: () if gate is None else gate.scopes.statuses(100.0, most),
        environments,
    )


def _samples(metrics: dict[str, Metrics]) -> list[tuple[str, dict[str, str], float]]:
    registry = combined_registry(process_registry(), {name: one.registry for name, one in metrics.items()})
    text = generate_latest(registry).decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _invent_callers(metrics: Metrics) -> int:
    codes = [*(kind.code for kind in VISIBLE), "caller_gone"]
    for number in range(INVENTED):
        metrics.requests.observe(
            Finished(
                method=f"M{number}" if number % 3 else ("GET", "POST", "PUT")[number % 9 // 3],
                status=(number * 7) % 1000,
                caller=f"caller-{number}",
                route=ROUTES[number % len(ROUTES)],
                code=codes[number % len(codes)],
                details={"reason": f"rule: {number}"},
            )
        )
    for reason in Reason:
        metrics.requests.observe(Finished(code="rate_limit_exceeded", details={"reason": reason.value}))
    return INVENTED + len(Reason)


@pytest.fixture(scope="module")
def gate() -> Gate:
    gate = Gate(GatePolicy(max_in_flight=2 * INVENTED, max_waiting=2 * INVENTED), lambda: 0.0)
    for number in range(INVENTED):
        ticket = Ticket(f"v2:predict:\udce9{number}\n", math.inf)
        assert gate.enqueue(ticket, 1.0) is None
        if gate.poll(1.0).granted:  # the gate remembers a bounded number of scopes; further tickets share one
            gate.settle(ticket, Outcome.THROTTLED, 1.0, 1000.0)
            assert gate.enqueue(ticket, 1.0) is None
    return gate


@pytest.mark.parametrize("environments", [1, 2, 6])
def test_ten_thousand_invented_callers_and_scopes_make_at_most_2000_series(gate: Gate, environments: int) -> None:
    metrics = {f"environment-{number}": _make(environments, gate) for number in range(environments)}
    counted = [_invent_callers(one) for one in metrics.values()]
    samples = _samples(metrics)
    assert len(samples) <= MAX_SERIES - 100 * environments  # leaves room for alerts and keys
    total = sum(value for name, _, value in samples if name == "nanonets_proxy_requests_total")
    assert total == sum(counted)
    waiting = sum(value for name, _, value in samples if name == "nanonets_proxy_scope_waiting")
    assert 0 < waiting <= gate.waiting * environments


def test_the_first_callers_keep_their_names_and_later_ones_are_others() -> None:
    metrics = RequestMetrics(1000)
    for number in range(MOST_CALLERS + 10):
        metrics.observe(Finished(caller=f"caller-{number}"))
    metrics.observe(Finished(caller="caller-0", status=404))
    (requests, *_) = metrics.collect()
    counts = {(sample.labels["caller"], sample.labels["status"]): sample.value for sample in requests.samples}
    assert counts["caller-0", "2xx"] == counts["caller-49", "2xx"] == counts["caller-0", "4xx"] == 1
    assert counts["other", "2xx"] == 10


def test_routes_of_further_callers_stay_visible() -> None:
    metrics = RequestMetrics(100)
    for caller in range(100):
        metrics.observe(Finished(caller=f"caller-{caller}"))
    metrics.observe(Finished(caller="late", route="/api/v4/workflows/{workflow}", method="DELETE"))
    labels = {"caller": "other", "method": "DELETE", "route": "/api/v4/workflows/{workflow}", "status": "2xx"}
    assert any(sample.labels == labels for family in metrics.collect() for sample in family.samples)


def test_scopes_keep_their_label() -> None:
    """Otherwise a database would keep a new series for each scope that was busy once."""
    shown = [f"first-{number}" for number in range(3)]
    metrics = ScopeMetrics(lambda _: [_waiting_scope(name) for name in shown], most_scopes=2)

    def waiting() -> dict[str, float]:
        (family, *_) = metrics.collect()
        return {sample.labels["scope"]: sample.value for sample in family.samples}

    assert waiting() == {"first-0": 1, "first-1": 1, "other": 1}
    shown[:] = ["later-0", "later-1", "first-1"]
    assert waiting() == {"first-1": 1, "other": 2}


def _waiting_scope(name: str) -> ScopeStatus:
    return ScopeStatus(name, "open", 1, 0, 0.0, False, None, None, 0.0, None, 0.0)  # noqa: FBT003 - quota_used_up


async def test_invented_callers_and_models_over_real_connections() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, caller_header="X-Caller") as proxy,
        await proxy.caller() as caller,
    ):
        for number in range(120):
            await caller.send(
                request(b"POST", b"/api/v2/OCR/Model/m%d/LabelUrls" % number, b"X-Caller: c%d" % number, body=b"x")
            )
            await (await upstream.next_request()).respond(OK)
            await caller.response()
        async with await RawCaller.connect(proxy.admin_address) as admin:
            text = (await admin.get(b"/metrics")).body.decode()
    families = text_string_to_metric_families(text)
    counts = {
        sample.labels["caller"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "nanonets_proxy_requests_total"
    }
    assert len(counts) == MOST_CALLERS + 1
    assert counts["other"] == 120 - MOST_CALLERS
