"""The judge: which step follows an attempt, and how its permit is settled."""

from dataclasses import dataclass
from typing import Any

import pytest

from nanonets_proxy.core.http.retry import MAX_PAUSE_S, Retries, RetryPolicy
from nanonets_proxy.core.keys.key_records import Ruling
from nanonets_proxy.core.ratelimit.hints.retry_hint import Hint
from nanonets_proxy.core.ratelimit.tickets import Outcome
from nanonets_proxy.request.judge import HOLD_FOR_KEY, Decision, Judge, Step
from nanonets_proxy.request.received import Received
from nanonets_proxy.upstream.errors import (
    UpstreamBadReply,
    UpstreamClosed,
    UpstreamConnectTimeout,
    UpstreamDnsFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTlsCertificate,
    UpstreamTlsCut,
    UpstreamUnreachable,
)
from nanonets_proxy.upstream.response_head import ResponseHead

PAUSE_S = 0.1
TIME_LEFT_S = 60.0


@dataclass(frozen=True)
class Sent:
    """A request as the judge sees it."""

    method: str = "GET"
    can_be_sent_again: bool = True
    retries: int = 0


def judge(*, retries: int = 1) -> Judge:
    return Judge(Retries(RetryPolicy(retries, PAUSE_S), lambda: 1.0))


def received(status: int, *, ruling: Ruling = Ruling.RELAY, hint_s: float | None = None) -> Received:
    connection: Any = None  # the judge does not look at it
    head = ResponseHead()
    head.status = status
    return Received(connection, head, ruling, hint=Hint(hint_s, sources_disagree=False))


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 403, 404, 413, 500, 501])
@pytest.mark.parametrize("request_sent", [Sent(), Sent(can_be_sent_again=False)], ids=["repeatable", "once"])
def test_a_response_that_says_nothing_about_repeating_is_relayed(status: int, request_sent: Sent) -> None:
    decision = judge().of_response(received(status), request_sent, TIME_LEFT_S)
    assert decision == Decision(Step.RELAY, Outcome.SERVED)


@pytest.mark.parametrize(
    ("ruling", "can_be_sent_again", "expected"),
    [
        (Ruling.SEND_AGAIN, True, Decision(Step.SEND_WITH_OTHER_KEY, Outcome.FAILED)),
        (Ruling.SEND_AGAIN, False, Decision(Step.RELAY, Outcome.KEY_REJECTED)),
        (Ruling.WAIT, True, Decision(Step.KEEP, Outcome.KEY_REJECTED)),
        (Ruling.WAIT, False, Decision(Step.RELAY, Outcome.KEY_REJECTED)),
        (Ruling.RELAY, True, Decision(Step.RELAY, Outcome.KEY_REJECTED)),
        (Ruling.RELAY, False, Decision(Step.RELAY, Outcome.KEY_REJECTED)),
    ],
)
def test_a_401_follows_the_ruling_of_the_keyring_if_the_request_can_be_sent_again(
    ruling: Ruling, can_be_sent_again: bool, expected: Decision
) -> None:
    sent = Sent("POST", can_be_sent_again)
    assert judge().of_response(received(401, ruling=ruling), sent, TIME_LEFT_S) == expected


@pytest.mark.parametrize("hint_s", [None, 0.0, 30.0, 86_400.0])
@pytest.mark.parametrize(("can_be_sent_again", "step"), [(True, Step.WAIT), (False, Step.RELAY)])
def test_a_429_settles_the_permit_as_throttled_with_the_hint(
    hint_s: float | None, can_be_sent_again: bool, step: Step
) -> None:
    """Also for a POST: the upstream did not process a request that it refused."""
    sent = Sent("POST", can_be_sent_again)
    decision = judge(retries=0).of_response(received(429, hint_s=hint_s), sent, TIME_LEFT_S)
    assert decision == Decision(step, Outcome.THROTTLED, retry_after_s=hint_s)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(
    ("sent", "retries", "hint_s", "time_left_s"),
    [
        (Sent("POST"), 1, None, TIME_LEFT_S),
        (Sent(can_be_sent_again=False), 1, None, TIME_LEFT_S),
        (Sent(retries=1), 1, None, TIME_LEFT_S),
        (Sent(), 0, None, TIME_LEFT_S),
        (Sent(), 1, MAX_PAUSE_S + 1, TIME_LEFT_S),
        (Sent(), 1, None, PAUSE_S / 2),
    ],
    ids=["not safe", "body not kept", "no retry left", "retries off", "hint too long", "deadline too near"],
)
def test_an_unavailable_upstreams_response_is_relayed_if_no_retry_is_possible(
    status: int, sent: Sent, retries: int, hint_s: float | None, time_left_s: float
) -> None:
    decision = judge(retries=retries).of_response(received(status, hint_s=hint_s), sent, time_left_s)
    assert decision == Decision(Step.RELAY, Outcome.SERVED)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(("hint_s", "pause_s"), [(None, PAUSE_S), (2.0, 2.0)])
def test_a_request_to_an_unavailable_upstream_is_retried_after_a_pause(
    status: int, hint_s: float | None, pause_s: float
) -> None:
    decision = judge().of_response(received(status, hint_s=hint_s), Sent(), TIME_LEFT_S)
    assert decision == Decision(Step.RETRY, Outcome.FAILED, pause_s=pause_s)


@pytest.mark.parametrize(
    "error", [UpstreamClosed, UpstreamDnsFailed, UpstreamRefused, UpstreamTlsCut, UpstreamUnreachable]
)
@pytest.mark.parametrize(
    ("method", "sent", "step"),
    [
        ("GET", True, Step.RETRY),
        ("GET", False, Step.RETRY),
        ("POST", True, Step.REPORT),
        ("POST", False, Step.RETRY),
        ("DELETE", True, Step.REPORT),
    ],
)
def test_a_request_that_may_have_been_received_is_repeated_only_if_its_method_is_safe(
    error: type[UpstreamError], method: str, sent: bool, step: Step
) -> None:
    decision = judge().of_error(error("gone", sent=sent), Sent(method), TIME_LEFT_S)
    assert (decision.step, decision.outcome) == (step, Outcome.FAILED)


@pytest.mark.parametrize(
    "error", [UpstreamBadReply, UpstreamConnectTimeout, UpstreamTimeout, UpstreamTlsCertificate]
)
def test_an_error_that_a_retry_would_meet_again_is_reported(error: type[UpstreamError]) -> None:
    decision = judge().of_error(error("broken"), Sent(), TIME_LEFT_S)
    assert decision == Decision(Step.REPORT, Outcome.FAILED)


@pytest.mark.parametrize(
    ("retries", "sent"), [(0, Sent()), (1, Sent(can_be_sent_again=False)), (1, Sent(retries=1))]
)
def test_a_temporary_error_is_reported_if_no_retry_is_possible(retries: int, sent: Sent) -> None:
    decision = judge(retries=retries).of_error(UpstreamRefused("refused"), sent, TIME_LEFT_S)
    assert decision == Decision(Step.REPORT, Outcome.FAILED)


def test_a_retry_is_paid_from_the_common_budget_and_nothing_else_is() -> None:
    retries = Retries(RetryPolicy(1000, PAUSE_S), lambda: 0.0)
    strict = Judge(retries)
    for status in (200, 401, 429):
        for _ in range(100):
            strict.of_response(received(status), Sent(), TIME_LEFT_S)
    steps = [strict.of_response(received(503), Sent(), TIME_LEFT_S).step for _ in range(20)]
    assert steps == [Step.RETRY] * 10 + [Step.RELAY] * 10


def test_a_request_held_for_a_key_waits_with_its_permit_unused() -> None:
    assert Decision(Step.WAIT, Outcome.UNUSED) == HOLD_FOR_KEY
