"""Every case against the real proxy, with raw sockets at both ends."""

import pytest

from conformance.cases import CASES
from conformance.page import PAGE, render
from conformance.play import Failed, Stage
from conformance.steps import Case
from support.eventually import WAIT_S
from support.proxy_harness import running_proxy
from support.scripted_upstream import ScriptedUpstream


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fact)
async def test_conformance(case: Case) -> None:
    """Plays each case twice, because a plan for a list of field names is kept for later heads."""
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, **case.settings) as proxy,
    ):
        for play in ("first", "second")[: 1 + case.repeatable]:
            async with await proxy.caller() as caller:
                try:
                    await Stage(caller, upstream, ours=True, patience_s=WAIT_S).play(case)
                except Failed as failure:
                    pytest.fail(f"{play} play: {failure}", pytrace=False)
            await proxy.check_idle()


def test_each_fact_is_proved_once() -> None:
    facts = [case.fact for case in CASES]
    assert sorted(facts) == sorted(set(facts))
    assert len(facts) >= 250


def test_the_page_lists_these_cases() -> None:
    assert PAGE.read_text() == render(), "docs/conformance.md is stale: run `make conformance-page`"
