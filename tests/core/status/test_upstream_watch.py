"""Whether the upstream is silent or slow: judged by route, so that rightful calls of minutes raise no alarm."""

import random

import pytest

from nanonets_proxy.core.status.upstream_watch import Dialing, Finding, Owed, Progress, UpstreamWatch

_LIST = ("GET", "/api/v4/workflows")
_POLL = ("GET", "/api/v4/workflows/{workflow}/documents/{document}")
_EXTRACT = ("POST", "/api/v4/workflows/{workflow}/documents")
_NOW = 1_000_000.0


def _watch(times: dict[tuple[str, str], list[float]], until: float = _NOW - 100) -> UpstreamWatch:
    """Returns a watch that has seen these times, one each second up to `until`."""
    watch = UpstreamWatch()
    for route, took in times.items():
        for index, took_s in enumerate(took):
            watch.note(route, took_s, until - len(took) + index)
    return watch


def _owed(*waits: tuple[tuple[str, str], float]) -> list[Owed]:
    return [Owed(route, _NOW - waited_s) for route, waited_s in waits]


def _kind(finding: Finding | None) -> str | None:
    return None if finding is None else finding.kind


def test_a_get_without_an_answer_is_named_after_eight_seconds() -> None:
    watch = _watch({_LIST: [0.3] * 20})
    progress = Progress(_owed((_LIST, 8.0), (_LIST, 4.0)), heard_at_s=_NOW - 9)
    assert watch.judge(progress, _NOW) == Finding(
        "silent",
        "Nanonets is silent: 1 of 2 requests in flight is overdue; GET /api/v4/workflows has waited for 8 s, "
        "usually at most 1 s.",
    )


def test_a_get_whose_usual_time_is_unknown_is_named_without_it() -> None:
    watch = _watch({_LIST: [0.3] * 3})
    finding = watch.judge(Progress(_owed((_LIST, 12.0), (_POLL, 15.0)), heard_at_s=_NOW - 15), _NOW)
    assert finding is not None
    assert finding.sentence == (
        "Nanonets is silent: 2 of 2 requests in flight are overdue; GET "
        "/api/v4/workflows/{workflow}/documents/{document} has waited for 15 s."
    )


@pytest.mark.parametrize(
    ("took_s", "waited_s", "kind"),
    [
        (1.5, 29.0, "quiet"),  # even if usual times are short, other methods may take longer now and then
        (1.5, 30.0, "silent"),
        (60.0, 190.0, "quiet"),
        (60.0, 193.0, "silent"),  # the times are known up to a power of 2
        (300.0, 329.0, "quiet"),
    ],
)
def test_a_post_is_overdue_after_several_times_its_usual_time(
    took_s: float, waited_s: float, kind: str | None
) -> None:
    watch = _watch({_EXTRACT: [took_s] * 20})
    progress = Progress(_owed((_EXTRACT, waited_s)), heard_at_s=_NOW - waited_s)
    assert _kind(watch.judge(progress, _NOW)) == kind


@pytest.mark.parametrize(
    ("known_s", "overdue_after_s"),
    [
        ([], 330.0),  # calls of 300 s exist
        ([0.5], 165.0),
        ([0.5] * 4, 66.0),
        ([0.5] * 9, 33.0),
        ([0.5] * 10, 30.0),
        ([20.0] * 4, 3 * 32 * 11 / 5),
        ([100.0], 3 * 128 * 11 / 2),
    ],
)
def test_the_fewer_times_of_a_post_are_known_the_later_it_is_overdue(
    known_s: list[float], overdue_after_s: float
) -> None:
    watch = _watch({_EXTRACT: known_s})
    for waited_s, kind in ((overdue_after_s - 0.1, "quiet"), (overdue_after_s + 0.1, "silent")):
        progress = Progress(_owed((_EXTRACT, waited_s)), heard_at_s=_NOW - 9999)
        assert _kind(watch.judge(progress, _NOW)) == kind


def test_an_upstream_that_sends_nothing_is_quiet_as_long_as_no_request_is_overdue() -> None:
    watch = UpstreamWatch()
    owed = _owed((_EXTRACT, 12.0), (_EXTRACT, 4.0))
    assert watch.judge(Progress(owed, heard_at_s=_NOW - 500), _NOW) == Finding(
        "quiet", "Nanonets has sent nothing for 12 s"
    )
    assert _kind(watch.judge(Progress(owed, heard_at_s=_NOW - 9), _NOW)) == "quiet"
    assert watch.judge(Progress(owed, heard_at_s=_NOW - 7), _NOW) is None
    assert watch.judge(Progress(heard_at_s=_NOW - 500), _NOW) is None


def test_after_a_silence_the_upstream_is_quiet_until_a_byte_comes() -> None:
    watch = UpstreamWatch()
    heard_at_s = _NOW - 60
    silent = Progress(_owed((_LIST, 10.0)), heard_at_s=heard_at_s)
    assert _kind(watch.judge(silent, _NOW)) == "silent"
    for owed in ([], [Owed(_EXTRACT, _NOW + 4)]):  # the overdue request has ended with a 504, or its caller is gone
        finding = watch.judge(Progress(owed, heard_at_s=heard_at_s), _NOW + 5)
        assert finding == Finding("quiet", "Nanonets has sent nothing for 15 s")
    assert watch.judge(Progress(heard_at_s=_NOW + 6), _NOW + 7) is None
    assert watch.judge(Progress(heard_at_s=_NOW + 6), _NOW + 60) is None


@pytest.mark.parametrize(
    ("known_s", "timeout_s", "overdue_after_s"),
    [
        ([], 330.0, 326.0),
        ([100.0], 330.0, 326.0),
        ([300.0] * 20, 330.0, 326.0),
        ([300.0] * 20, 7200.0, 1536.0),
        ([], 60.0, 56.0),
        ([1.0] * 20, 330.0, 30.0),
        ([], 5.0, 8.0),
    ],
)
def test_a_request_is_overdue_before_it_is_given_up(
    known_s: list[float], timeout_s: float, overdue_after_s: float
) -> None:
    watch = _watch({_EXTRACT: known_s})
    for waited_s, is_silent in ((overdue_after_s - 0.1, False), (overdue_after_s + 0.1, True)):
        progress = Progress(_owed((_EXTRACT, waited_s)), heard_at_s=_NOW - 9999, gives_up_after_s=timeout_s)
        assert (_kind(watch.judge(progress, _NOW)) == "silent") is is_silent


def test_a_slow_route_is_named_by_its_requests_in_flight_while_others_are_served() -> None:
    watch = _watch({_LIST: [0.1] * 20, _POLL: [0.1] * 20})
    owed = _owed((_POLL, 9.0), (_POLL, 8.5), (_POLL, 8.0), (_LIST, 0.1))
    assert watch.judge(Progress(owed, heard_at_s=_NOW), _NOW) == Finding(
        "slow",
        "Nanonets is slow: 3 of 3 requests in flight to GET /api/v4/workflows/{workflow}/documents/{document} are "
        "overdue; one has waited for 9 s, usually at most 1 s.",
    )


def test_a_route_stays_slow_between_requests_until_a_response_is_fast() -> None:
    watch = _watch({_POLL: [0.1] * 50}, until=_NOW - 1)
    assert _kind(watch.judge(Progress(_owed(*[(_POLL, 9.0)] * 3), heard_at_s=_NOW), _NOW)) == "slow"
    for at_s in (3.0, 3.1, 15.0):
        watch.note(_POLL, 12.0, _NOW + at_s)
        finding = watch.judge(Progress(heard_at_s=_NOW + at_s), _NOW + at_s + 1)
        assert finding is not None
        assert (
            finding.sentence == f"Nanonets is slow: the last response to {' '.join(_POLL)} took 12 s, usually 1 s."
        )
    assert watch.judge(Progress(heard_at_s=_NOW + 90), _NOW + 90) is None  # nothing is known of the last minute
    watch.note(_POLL, 12.0, _NOW + 100)
    assert _kind(watch.judge(Progress(heard_at_s=_NOW + 100), _NOW + 100)) == "slow"
    for _ in range(3):
        watch.note(_POLL, 0.1, _NOW + 101)
    watch.note(_POLL, 12.0, _NOW + 102)
    assert watch.judge(Progress(heard_at_s=_NOW + 102), _NOW + 102) is None


@pytest.mark.parametrize(("idle_s", "kind"), [(599.0, "slow"), (600.0, None)])
def test_overdue_requests_are_forgotten_ten_minutes_after_the_last_sign_of_slowness(
    idle_s: float, kind: str | None
) -> None:
    watch = _watch({_POLL: [0.1] * 50}, until=_NOW - 1)
    assert _kind(watch.judge(Progress(_owed(*[(_POLL, 9.0)] * 3), heard_at_s=_NOW), _NOW)) == "slow"
    for at_s in (_NOW + 500, _NOW + 500 + idle_s):
        watch.note(_POLL, 6.0, at_s)
    assert _kind(watch.judge(Progress(heard_at_s=at_s), at_s)) == kind


@pytest.mark.parametrize(
    ("route", "known_s", "waited_s"),
    [
        (_POLL, [0.1] * 20, [9.0, 9.0]),  # too few
        (_POLL, [0.1] * 20, [9.0, 9.0, 9.0, 0.1, 0.1, 0.1, 0.1]),  # most are well
        (_POLL, [0.1] * 9, [9.0] * 5),  # nothing is known of usual times
        (_POLL, [20.0] * 20, [40.0] * 5),
        (_EXTRACT, [0.1] * 20, [50.0] * 5),  # an extraction may rightly take long
    ],
)
def test_a_few_long_requests_in_flight_are_no_slow_upstream(
    route: tuple[str, str], known_s: list[float], waited_s: list[float]
) -> None:
    watch = _watch({route: known_s})
    progress = Progress(_owed(*((route, waits_s) for waits_s in waited_s)), heard_at_s=_NOW)
    assert watch.judge(progress, _NOW) is None


def test_nothing_is_silent_while_other_responses_arrive() -> None:
    watch = _watch({_LIST: [0.3] * 20})
    assert watch.judge(Progress(_owed((_LIST, 60.0)), heard_at_s=_NOW - 7), _NOW) is None
    assert watch.judge(Progress(heard_at_s=_NOW - 9999), _NOW) is None


def test_a_get_that_usually_takes_long_is_overdue_later() -> None:
    watch = _watch({_POLL: [40.0] * 20})
    assert _kind(watch.judge(Progress(_owed((_POLL, 190.0)), heard_at_s=_NOW - 190), _NOW)) == "quiet"


def test_one_of_a_hundred_long_calls_is_not_the_usual_time_but_two_are() -> None:
    for long_calls, kind in ((1, "silent"), (3, "quiet")):
        watch = _watch({_EXTRACT: [1.0] * 200 + [100.0] * long_calls})
        progress = Progress(_owed((_EXTRACT, 120.0)), heard_at_s=_NOW - 120)
        assert _kind(watch.judge(progress, _NOW)) == kind


def test_a_nightly_batch_is_known_in_the_next_night() -> None:
    watch = _watch({_EXTRACT: [100.0] * 40}, until=_NOW - 86_400)
    for second in range(0, 86_300, 30):
        watch.note(_EXTRACT, 1.0, _NOW - 86_400 + second)
    progress = Progress(_owed((_EXTRACT, 300.0)), heard_at_s=_NOW - 300)
    assert _kind(watch.judge(progress, _NOW)) == "silent"
    busier = _watch({_EXTRACT: [100.0] * 400}, until=_NOW - 86_400)
    for second in range(0, 86_300, 30):
        busier.note(_EXTRACT, 1.0, _NOW - 86_400 + second)
    assert _kind(busier.judge(progress, _NOW)) == "quiet"


def test_times_of_past_weeks_are_forgotten() -> None:
    watch = _watch({_EXTRACT: [1.0] * 20}, until=_NOW - 86_400 * 7)
    watch.note(_EXTRACT, 1.0, _NOW - 60)
    assert _kind(watch.judge(Progress(_owed((_EXTRACT, 140.0)), heard_at_s=_NOW - 140), _NOW)) == "quiet"


def test_a_slow_upstream_is_named_by_its_latest_responses_to_a_get() -> None:
    watch = _watch({_LIST: [1.0] * 100, _POLL: [0.1] * 100})
    for second in (40, 20, 5):
        watch.note(_LIST, 30.0, _NOW - second)
    assert watch.judge(Progress(heard_at_s=_NOW), _NOW) == Finding(
        "slow",
        "Nanonets is slow: half of the last 3 responses to GET /api/v4/workflows took 30 s or more, usually 2 s.",
    )
    assert watch.judge(Progress(heard_at_s=_NOW), _NOW + 30) is None  # the oldest is of an earlier minute


@pytest.mark.parametrize(
    ("route", "usual_s", "latest_s"),
    [
        (_LIST, [0.1] * 20, [4.0] * 5),  # far above, but nobody suffers
        (_LIST, [20.0] * 20, [30.0] * 5),
        (_LIST, [0.1] * 20, [0.1, 0.1, 30.0]),
        (_LIST, [0.1] * 20, [30.0] * 2),
        (_LIST, [], [30.0] * 5),  # nothing is known of usual times
        (_EXTRACT, [1.0] * 20, [120.0] * 5),  # an extraction may rightly take long
    ],
)
def test_a_few_long_responses_are_no_slow_upstream(
    route: tuple[str, str], usual_s: list[float], latest_s: list[float]
) -> None:
    watch = _watch({route: usual_s})
    for index, took_s in enumerate(latest_s):
        watch.note(route, took_s, _NOW - 10 + index)
    assert watch.judge(Progress(heard_at_s=_NOW), _NOW) is None


def test_an_hour_of_slowness_is_still_slow() -> None:
    watch = _watch({_LIST: [1.0] * 14_400}, until=_NOW - 3600)
    for second in range(3600):
        watch.note(_LIST, 30.0, _NOW - 3600 + second)
    assert _kind(watch.judge(Progress(heard_at_s=_NOW), _NOW)) == "slow"


@pytest.mark.parametrize(
    ("waits_s", "sentence"),
    [
        ([], None),
        ([3.9, 1.0], None),
        ([4.0], "the TLS handshake has taken 4 s so far, and 1 request waits for it"),
        ([7.0, 2.0], "the TLS handshake has taken 7 s so far, and 2 requests wait for it"),
    ],
)
def test_a_connection_under_way_for_four_seconds_is_named(waits_s: list[float], sentence: str | None) -> None:
    dialing = [Dialing(_NOW - wait_s, "the TLS handshake") for wait_s in waits_s]
    expected = None if sentence is None else Finding("unreachable", f"Nanonets cannot be reached: {sentence}.")
    assert UpstreamWatch().judge(Progress(dialing=dialing, heard_at_s=_NOW), _NOW) == expected


def test_methods_of_a_callers_choice_are_not_remembered() -> None:
    watch = UpstreamWatch()
    for number in range(1000):
        watch.note((f"M{number}", _LIST[1]), 1.0, _NOW)
    assert not watch._routes


@pytest.mark.parametrize("seed", range(8))
def test_healthy_hours_with_rightful_calls_of_minutes_raise_nothing_from_the_start_on(seed: int) -> None:
    """Four callers poll, and a batch extracts with calls of 30 to 300 s; each second has one look."""
    chance = random.Random(seed)
    watch, running, heard_at_s, false_alarms = UpstreamWatch(), list[tuple[float, Owed]](), 0.0, 0
    for second in range(3 * 3600):
        now = float(second)
        for end_s, owed in [each for each in running if each[0] <= now]:
            watch.note(owed.route, end_s - owed.since_s, now)
            heard_at_s = now
            running.remove((end_s, owed))
        polls = 4 if second % 1800 < 900 else 0  # in half of the time, only extractions are in flight
        for _ in range(polls):
            if chance.random() < 0.2:
                running.append((now + chance.lognormvariate(-1, 0.8), Owed(_POLL, now)))
        if len(running) < 6 and chance.random() < 0.1:
            running.append((now + chance.uniform(30, 300), Owed(_EXTRACT, now)))
        progress = Progress([owed for _, owed in running], heard_at_s=heard_at_s)
        false_alarms += _kind(watch.judge(progress, now)) not in (None, "quiet")
    assert false_alarms == 0
