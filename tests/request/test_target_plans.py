"""Target plans: equal to what is computed without a cache, and bounded."""

from nanonets_proxy.core.http.path_pattern import any_path
from nanonets_proxy.core.ratelimit.scopes.scope_table import DEFAULT_SCOPE_RULES, ScopeRule, ScopeTable
from nanonets_proxy.request.target_plans import TargetPlan, TargetPlans

_MOST = 512


def _plans() -> TargetPlans:
    return TargetPlans(ScopeTable(map(ScopeRule.parse, DEFAULT_SCOPE_RULES)), any_path(["/api/v4/workflows/{id}"]))


def test_a_plan_has_the_route_the_scope_and_the_target_without_secrets() -> None:
    target = "/api/v2/OCR/Model/m/LabelFile?token=secret"
    assert _plans()["POST", target] == TargetPlan(
        route="/api/v2/OCR/Model/{model}/LabelFile",
        scope="v2:predict:m",
        loggable="/api/v2/OCR/Model/m/LabelFile?token",
        may_be_coalesced=False,
        start=b"POST /api/v2/OCR/Model/m/LabelFile?token=secret",
    )


def test_only_a_get_of_a_listed_path_may_be_coalesced() -> None:
    plans = _plans()
    pairs = [("GET", "/api/v4/workflows/1"), ("HEAD", "/api/v4/workflows/1"), ("GET", "/api/v4/workflows")]
    assert [plans[pair].may_be_coalesced for pair in pairs] == [True, False, False]


def test_a_pair_that_repeats_has_the_same_plan() -> None:
    plans = _plans()
    assert plans["GET", "/a"] is plans["GET", "/a"]
    assert plans["GET", "/a"] is not plans["POST", "/a"]


def test_the_oldest_plan_makes_room_and_long_targets_are_not_kept() -> None:
    plans = _plans()
    first = plans["GET", "/0"]
    for number in range(1, _MOST):
        assert plans["GET", f"/{number}"].scope == "account"
    assert plans["GET", "/0"] is first
    assert plans["GET", f"/{_MOST}"] is plans["GET", f"/{_MOST}"]
    assert plans["GET", "/0"] is not first
    assert plans["GET", "/" + "a" * 300].route == "/other"
    assert len(plans) == _MOST
