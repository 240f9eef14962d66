"""What requests cost in scopes whose limits are in pages."""

import pytest

from nanonets_proxy.core.ratelimit.scopes.page_costs import MAX_PAGES, PageCosts
from nanonets_proxy.core.ratelimit.scopes.scope_table import ScopeRule
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit
from nanonets_proxy.errors import BadRequest

RULES = tuple(map(ScopeRule.parse, ["POST /predict/{model} -> predict:{model} pages", "* /other/** -> other"]))
LIMITS = (StaticLimit.parse("v2:* 20 pages/minute"), StaticLimit.parse("account 60/minute"))


@pytest.mark.parametrize(("scope", "cost"), [("predict:m", 7), ("v2:predict:m", 7), ("other", 1), ("account", 1)])
def test_stated_pages_count_in_scopes_whose_limit_is_in_pages(scope: str, cost: float) -> None:
    costs = PageCosts("X-Pages", RULES, LIMITS)
    assert costs.cost_of(scope, b"7") == cost
    assert costs.cost_of(scope, b"7") == cost


@pytest.mark.parametrize(
    "stated", [b"", b"0", b"-1", b"1.5", b"seven", b"10001", b"999999999999", b"1, 2", b"\xb2"]
)
@pytest.mark.parametrize("scope", ["predict:m", "other"])
def test_any_other_value_is_a_400_that_names_the_field(stated: bytes, scope: str) -> None:
    with pytest.raises(BadRequest, match=f"X-Pages must be the number of pages, from 1 to {MAX_PAGES}"):
        PageCosts("X-Pages", RULES, LIMITS).cost_of(scope, stated)


def test_a_request_without_pages_costs_the_mean_of_its_scope() -> None:
    costs = PageCosts("X-Pages", RULES, LIMITS)
    assert costs.cost_of("predict:a", None) == 1
    for _ in range(200):
        costs.cost_of("predict:a", b"2")
        costs.cost_of("predict:a", b"6")
    assert costs.cost_of("predict:a", None) == pytest.approx(4, abs=0.2)
    assert costs.cost_of("predict:b", None) == 1


def test_the_first_stated_pages_are_the_first_mean() -> None:
    costs = PageCosts("X-Pages", RULES, LIMITS)
    costs.cost_of("predict:a", b"50")
    assert costs.cost_of("predict:a", None) == pytest.approx(50)


def test_costs_are_in_use_if_any_limit_is_in_pages() -> None:
    assert PageCosts("", RULES, ()).in_use
    assert PageCosts("", (), LIMITS).in_use
    assert not PageCosts("", RULES[1:], LIMITS[1:]).in_use


def test_the_means_are_bounded() -> None:
    costs = PageCosts("X-Pages", RULES, LIMITS)
    for number in range(5000):
        costs.cost_of(f"predict:{number}", b"3")
    assert len(costs._means) <= 1024
