"""What a policy would have rejected, by the routes of past requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.access.access_rules import AccessRule, AccessRules
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.api.routes import ROUTES, route_of
from nanonets_proxy.core.usage.policy_replay import PolicyRejection, beyond_budget, judge_route

WORKFLOW = "/api/v4/workflows/{workflow}"


def judge(rules: list[str], method: str, route: str, caller: str = "billing", *, read_only: bool = False):
    found = judge_route(list(map(AccessRule.parse, rules)), caller, method, route, read_only=read_only)
    return None if found is None else (found.reason, found.is_certain)


@pytest.mark.parametrize(
    ("rules", "method", "route", "rejection"),
    [
        ([], "GET", WORKFLOW, None),
        (["deny DELETE /**"], "DELETE", WORKFLOW, ("rule: deny DELETE /**", True)),
        (["deny DELETE /**"], "GET", WORKFLOW, None),
        (["deny * /api/v4/workflows/*"], "GET", WORKFLOW, ("rule: deny * /api/v4/workflows/*", True)),
        (["deny * /API/v4/Workflows/*"], "GET", WORKFLOW, ("rule: deny * /API/v4/Workflows/*", True)),
        (["deny * /api/v4/workflows/42"], "GET", WORKFLOW, ("rule: deny * /api/v4/workflows/42", False)),
        (["deny * /api/v4/workflows"], "GET", WORKFLOW, None),
        (["deny * /api/v4/workflows/*/fields"], "GET", WORKFLOW, None),
        (["deny * /api/v2/**"], "GET", WORKFLOW, None),
        (
            ["deny * /api/v4/workflows/42", "deny * /api/**"],
            "GET",
            WORKFLOW,
            ("rule: deny * /api/**", True),
        ),
        (["allow GET /api/v4/**"], "GET", WORKFLOW, None),
        (["allow GET /api/v4/**"], "GET", "", ("no_rule_allows_it", True)),
        (["allow GET /api/v4/**"], "POST", WORKFLOW, ("no_rule_allows_it", True)),
        (["allow GET /API/v4/**"], "GET", WORKFLOW, ("no_rule_allows_it", True)),
        (["allow GET /api/v4/workflows/42"], "GET", WORKFLOW, ("no_rule_allows_it", False)),
        (
            ["allow GET /api/v4/workflows/42", "deny * /api/v4/workflows/7"],
            "GET",
            WORKFLOW,
            ("rule: deny * /api/v4/workflows/7", False),
        ),
        (["billing: allow POST /**", "allow GET /**"], "GET", WORKFLOW, ("no_rule_allows_it", True)),
        (["sales: allow POST /**", "allow GET /**"], "GET", WORKFLOW, None),
        (["sales: deny * /**"], "GET", WORKFLOW, None),
        (["deny PURGE /**"], "other", WORKFLOW, ("rule: deny PURGE /**", False)),
        (["deny * /api/v2/**"], "GET", "/api/v2/other", ("rule: deny * /api/v2/**", True)),
        (["deny * /api/v2"], "GET", "/api/v2/other", ("rule: deny * /api/v2", False)),
        (["deny * /api/v2/x/y"], "GET", "/api/v2/other", ("rule: deny * /api/v2/x/y", False)),
        (["deny * /api"], "GET", "/api/v2/other", None),
        (["deny * /x"], "GET", "/other", ("rule: deny * /x", False)),
        (["deny * /**"], "GET", "/other", ("rule: deny * /**", True)),
    ],
)
def test_a_route_is_rejected_for_certain_possibly_or_not(rules, method, route, rejection) -> None:
    assert judge(rules, method, route) == rejection


def test_read_only_rejects_all_methods_but_the_safe_ones() -> None:
    assert judge([], "POST", WORKFLOW, read_only=True) == ("read_only", True)
    assert judge([], "other", WORKFLOW, read_only=True) == ("read_only", True)
    assert judge([], "GET", WORKFLOW, read_only=True) is None


segments = st.sampled_from(["api", "v2", "v4", "workflows", "documents", "42", "x"])
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
patterns = st.tuples(st.lists(segments | st.just("*"), max_size=5), st.booleans()).map(
    lambda pair: "/" + "/".join([*pair[0], *(["**"] if pair[1] else [])])
)
rules = st.lists(
    st.builds(
        "{}{} {} {}".format,
        st.sampled_from(["", "billing: ", "sales: "]),
        st.sampled_from(["allow", "deny"]),
        st.sampled_from(["*", "GET", "POST|PUT"]),
        patterns,
    ),
    max_size=4,
)


@given(rules, st.sampled_from(["GET", "POST"]), paths, st.booleans())
def test_the_judgement_of_a_route_agrees_with_that_of_each_of_its_paths(
    texts: list[str], method: str, path: str, read_only: bool
) -> None:
    parsed = list(map(AccessRule.parse, texts))
    denial = AccessRules(parsed, read_only=read_only).judge("billing", method, path, ())
    found = judge_route(parsed, "billing", method, route_of(path), read_only=read_only)
    if denial is not None:
        assert found is not None, "a rejected request must not be missed"
    elif found is not None:
        assert not found.is_certain
    if found is not None and found.is_certain:
        assert denial is not None


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_can_be_judged(route: str) -> None:
    assert judge(["deny * /**"], "GET", route) == ("rule: deny * /**", True)


def test_the_requests_beyond_a_daily_budget_are_counted_by_caller() -> None:
    budgets = list(map(BudgetRule.parse, ["10", "billing: 2"]))
    days = {1: {"billing": 5, "10.0.0.1": 10}, 2: {"billing": 3, "10.0.0.1": 11}}
    assert beyond_budget(budgets, days) == {"billing": 4, "10.0.0.1": 1}
    assert beyond_budget(budgets[1:], days) == {"billing": 4}


def test_a_rejection_has_a_reason() -> None:
    assert PolicyRejection("read_only", is_certain=True).reason == "read_only"
