"""The last errors by kind, each with its cure."""

import inspect

import pytest

from nanonets_proxy import errors
from nanonets_proxy.core.status import error_advice
from nanonets_proxy.core.status.error_advice import advice_for, secret_flag_advice
from nanonets_proxy.core.status.recent_errors import LastFailure, RecentErrors
from nanonets_proxy.upstream import errors as upstream_errors

_ERROR_CODES = {
    value.code
    for value in (*vars(errors).values(), *vars(upstream_errors).values())
    if inspect.isclass(value) and issubclass(value, errors.ProxyError) and hasattr(value, "code")
}


def test_errors_are_grouped_by_kind_with_the_newest_first() -> None:
    recent = RecentErrors()
    recent.note(404, "", "a", "id1", 10.0)
    recent.note(502, "upstream_closed", "b", "id2", 20.0)
    recent.note(404, "", "c", "id3", 30.0)
    first, second = recent.problems(40.0)
    assert (first.kind, first.times, first.age_s) == ("upstream_404", 2, 10)
    assert (first.caller, first.request_id) == ("c", "id3")
    assert (second.kind, second.times, second.is_alert) == ("upstream_closed", 1, False)


@pytest.mark.parametrize(
    ("reason", "setting"),
    [("queue_full", "max_waiting,"), ("queue_full_for_caller", "max_waiting_per_caller."), ("", "max_wait,")],
)
def test_the_cure_of_a_refusal_depends_on_its_reason(reason: str, setting: str) -> None:
    recent = RecentErrors()
    recent.note(429, "rate_limit_exceeded", "a", "id", 10.0, reason=reason)
    (problem,) = recent.problems(10.0)
    assert setting in problem.advice


def test_only_the_last_50_errors_count_for_an_hour() -> None:
    recent = RecentErrors()
    for at_s in range(60):
        recent.note(500, "", "a", "id", float(at_s))
    (problem,) = recent.problems(60.0)
    assert problem.times == 50
    (problem,) = recent.problems(3610.0 + 45)
    assert problem.times == 4
    assert recent.problems(9999.0) == []


def test_the_newest_failure_is_a_5xx() -> None:
    recent = RecentErrors()
    assert recent.newest_failure() is None
    recent.note(504, "upstream_timeout", "a", "id", 1.0)
    recent.note(404, "", "a", "id", 2.0)
    recent.note(200, "caller_gone", "a", "id", 3.0)
    assert recent.newest_failure() == "upstream_timeout"


@pytest.mark.parametrize(
    ("status", "code", "reason", "expected"),
    [
        (504, "upstream_timeout", "", LastFailure("upstream_timeout", is_refusal=False, age_s=60.0, reason="")),
        (503, "", "", LastFailure("upstream_503", is_refusal=False, age_s=60.0, reason="")),
        (200, "upstream_closed", "", LastFailure("upstream_closed", is_refusal=False, age_s=60.0, reason="")),
        (
            *(429, "rate_limit_exceeded", "quota_used_up"),
            LastFailure("rate_limit_exceeded", is_refusal=True, age_s=60.0, reason="quota_used_up"),
        ),
        (429, "", "", LastFailure("upstream_429", is_refusal=True, age_s=60.0, reason="")),
        (429, "daily_budget_used_up", "", None),
        (404, "", "", None),
        (501, "not_implemented", "", None),
        (505, "http_version_not_supported", "", None),
        (501, "", "", LastFailure("upstream_501", is_refusal=False, age_s=60.0, reason="")),
        (0, "caller_gone", "", None),
        (200, "caller_gone", "", None),
    ],
)
def test_a_failure_is_the_last_request_until_one_succeeds_or_an_hour_is_over(
    status: int, code: str, reason: str, expected: LastFailure | None
) -> None:
    recent = RecentErrors()
    recent.note(status, code, "a", "id", 100.0, reason=reason, good=7.0)
    assert recent.last_failure(7.0, 160.0) == expected
    assert recent.last_failure(8.0, 160.0) is None
    assert recent.last_failure(7.0, 3700.0) is None


def test_names_are_cut_and_can_be_encoded() -> None:
    recent = RecentErrors()
    recent.note(404, "", "\udcff" + "é" * 200, "x" * 200, 1.0)
    (problem,) = recent.problems(1.0)
    assert problem.caller == "?" + "é" * 63
    assert problem.request_id == "x" * 64


def test_each_error_code_has_an_advice_of_its_own() -> None:
    generic = {advice_for("upstream_418"), advice_for("upstream_599"), advice_for("unheard_of")}
    assert len(generic) == 3
    assert len(_ERROR_CODES) > 25
    assert [code for code in sorted(_ERROR_CODES) if advice_for(code) in generic] == []


def test_no_advice_is_left_for_an_error_that_no_longer_exists() -> None:
    others = {"caller_gone", "body_copy_discarded"} | {f"upstream_{status}" for status in range(400, 600)}
    assert set(error_advice._ADVICE) - _ERROR_CODES - others == set()


def test_the_advice_about_a_secret_in_a_flag_names_variable_and_file() -> None:
    advice = secret_flag_advice("webhook_url")
    assert "the variable NANONETS_PROXY_WEBHOOK_URL or the secret file nanonets_proxy_webhook_url" in advice
