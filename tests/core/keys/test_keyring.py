"""Examples of the keyring's behaviour; `test_keyring_properties.py` tests its invariants."""

import math
from itertools import pairwise

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.doubts import BRIEF_S, MOST_TARGETS, NOTICE_S, REMEMBERED_S, UnauthorizedTargets
from nanonets_proxy.core.keys.hold_period import PROBE_EVERY_S, PROBE_S, READING_S, REARM_S
from nanonets_proxy.core.keys.key_records import (
    FoundKey,
    KeyEvent,
    KeyEventKind,
    KeyHistory,
    KeyringState,
    KeyState,
    KeyUse,
    KeyVerdict,
    KeyWarning,
    Purpose,
    Ruling,
    verdict_of,
)
from nanonets_proxy.core.keys.keyring import Keyring
from nanonets_proxy.core.keys.keyring_policy import KeyringPolicy
from nanonets_proxy.core.keys.known_keys import MOST_UNLISTED
from nanonets_proxy.core.keys.reading_pace import LONGEST_PAUSE_S, ReadingPace

ACCEPTED, REJECTED, UNKNOWN = KeyVerdict.ACCEPTED, KeyVerdict.REJECTED, KeyVerdict.UNKNOWN
NO_WARNING: list[KeyWarning] = []


def key(name: str) -> ApiKey:
    return ApiKey.parse(name, f"test:{name}")


class Driver:
    """Drives a keyring as the key manager does, with a virtual clock."""

    def __init__(self, *names: str, **policy: float | bool) -> None:
        self.now = 0.0
        self.requests = 0
        self.ring = Keyring(KeyringPolicy(**policy))  # each test gives its own fields
        self.events: list[KeyEvent] = []
        self.read(*names)

    def request(self, *, may_test_candidate: bool = True, target: str = "") -> KeyHistory:
        """Returns the history of a new request, by default with a target of its own."""
        self.requests += 1
        return KeyHistory(may_test_candidate, target or f"GET /{self.requests}")

    def read(self, *names: str, on_demand: bool = False) -> None:
        self.events += self.ring.read([FoundKey(key(name), 0.0) for name in names], self.now, on_demand=on_demand)

    def choose(
        self, history: KeyHistory | None = None, *, may_test_candidate: bool = True, may_wait: bool = True
    ) -> KeyUse:
        use = self.ring.choose_fast() if history is None or not history.rejections else None
        use = use or self.ring.choose(
            history or self.request(may_test_candidate=may_test_candidate), self.now, may_wait=may_wait
        )
        assert use is not None
        return use

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None = None) -> Ruling:
        self.now += 0.01
        history = history or self.request()
        self.events += self.ring.settle(use, verdict, self.now, history)
        if verdict is not REJECTED:
            return Ruling.RELAY
        return self.ring.rule(use, history, self.now)

    def get(self, *accepted: str, may_test_candidate: bool = True, target: str = "") -> list[str]:
        """Sends one request until it ends or waits.

        Returns the names of the keys used. A request without success adds `held`, `kept` (its 401) or `401`.
        """
        history, names = self.request(may_test_candidate=may_test_candidate, target=target), []
        while True:
            if self.ring.wait_until_s(history, self.now) is not None:
                return [*names, "held"]
            use = self.choose(history)
            name = use.record.key.name.removeprefix("test:")
            names.append(name)
            if name in accepted:
                self.settle(use, ACCEPTED)
                return names
            ruling = self.settle(use, REJECTED, history)
            if ruling is not Ruling.SEND_AGAIN:
                return [*names, "401" if ruling is Ruling.RELAY else "kept"]

    def reject_twice(self) -> None:
        """Sends two requests of different targets, which the upstream rejects with every key."""
        assert self.get()[-1] == "kept"
        self.get()

    def states(self) -> dict[str, str]:
        return {r.key.name.removeprefix("test:"): r.state.value for r in self.ring.known.records}

    def kinds(self) -> list[KeyEventKind]:
        return [event.kind for event in self.events]

    def warnings(self, wall_now_s: float = 0.0, max_age_s: float = 0.0) -> list[KeyWarning]:
        return self.ring.known.warnings(wall_now_s=wall_now_s, max_age_s=max_age_s)


def test_the_first_key_becomes_active_when_it_is_accepted() -> None:
    driver = Driver("a")
    assert driver.states() == {"a": "candidate"}
    assert driver.get("a") == ["a"]
    assert driver.states() == {"a": "active"}
    assert driver.kinds() == [KeyEventKind.CANDIDATE_FOUND, KeyEventKind.ACTIVATED]


def test_the_next_request_probes_a_new_key_and_the_old_key_is_kept_for_the_grace_time() -> None:
    driver = Driver("a", grace_s=60.0)
    driver.get("a")
    driver.read("b")
    assert driver.get("a", "b") == ["b"]
    assert driver.states() == {"a": "previous", "b": "active"}
    driver.now += 60.0
    driver.get("b")
    assert driver.states() == {"b": "active"}


def test_one_request_at_a_time_probes_a_candidate_and_the_others_use_the_active_key() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    probe, other = driver.choose(), driver.choose()
    assert (probe.record.key, probe.purpose) == (key("b"), Purpose.CANDIDATE_PROBE)
    assert (other.record.key, other.purpose) == (key("a"), Purpose.ORDINARY)
    driver.settle(probe, UNKNOWN)
    assert driver.choose().purpose is Purpose.CANDIDATE_PROBE


def test_another_grace_time_applies_to_the_keys_that_are_replaced_later() -> None:
    driver = Driver("a", grace_s=60.0)
    driver.get("a")
    driver.ring.change_policy(KeyringPolicy(grace_s=5.0))
    driver.read("b")
    assert driver.get("a", "b") == ["b"]
    driver.now += 5.0
    driver.get("b")
    assert driver.states() == {"b": "active"}


def test_the_fast_choice_exists_while_the_active_key_is_preferred_and_no_grace_time_runs() -> None:
    driver = Driver("a", grace_s=60.0)
    assert driver.ring.choose_fast() is None  # a candidate
    driver.get("a")
    fast = driver.ring.choose_fast()
    assert fast is not None
    assert (fast.record.key, fast.purpose) == (key("a"), Purpose.ORDINARY)
    driver.read("b")
    assert driver.ring.choose_fast() is None  # another candidate
    driver.get("b")
    assert driver.ring.choose_fast() is None  # the previous key has its grace time
    driver.now += 60.0
    driver.get("b")
    assert driver.ring.choose_fast() is not None
    driver.reject_twice()
    assert driver.ring.choose_fast() is None


def test_another_request_may_probe_a_candidate_when_a_probe_takes_long() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    driver.choose()
    driver.now += PROBE_S
    assert driver.choose().purpose is Purpose.CANDIDATE_PROBE


def test_a_costly_request_uses_a_candidate_only_if_no_other_key_is_usable() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    assert driver.get("a", "b", may_test_candidate=False) == ["a"]
    assert driver.get("b", may_test_candidate=False) == ["a", "b"]


def test_if_the_key_manager_probes_no_request_uses_a_candidate() -> None:
    driver = Driver("a", requests_probe=False)
    driver.get("a")
    driver.read("b")
    assert driver.get("a", "b") == ["a"]
    probe = driver.ring.choose_for_probe(driver.now)
    assert probe is not None
    driver.settle(probe, ACCEPTED)
    assert driver.ring.choose_for_probe(driver.now) is None
    assert driver.get("a", "b") == ["b"]


def test_a_wrong_candidate_is_rejected_and_no_caller_gets_a_401() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("wrong")
    assert driver.get("a") == ["wrong", "a"]
    assert [driver.get("a") for _ in range(3)] == [["a"]] * 3
    assert driver.states() == {"a": "active", "wrong": "rejected"}
    assert driver.warnings() == [KeyWarning.CANDIDATE_REJECTED]
    assert driver.kinds()[-1] is KeyEventKind.CANDIDATE_REJECTED
    assert not driver.ring.needs_reading


def test_only_a_reading_on_demand_makes_a_rejected_key_a_candidate_again() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    driver.get("a")
    driver.read("b")
    assert driver.get("a", "b") == ["a"]
    driver.read("b", on_demand=True)
    assert driver.get("a", "b") == ["b"]
    assert driver.warnings() == NO_WARNING


def test_a_wrong_key_that_leaves_the_source_is_forgotten() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("wrong")
    driver.get("a")
    driver.read("a")
    assert driver.states() == {"a": "active"}
    assert driver.warnings() == NO_WARNING


def test_a_revoked_key_is_replaced_by_the_new_one_within_the_same_request() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    uses = [driver.choose(may_test_candidate=False) for _ in range(3)]
    for use in uses:
        history = driver.request(may_test_candidate=False)
        assert driver.settle(use, REJECTED, history) is Ruling.SEND_AGAIN
        assert driver.choose(history).record.key == key("b")


def test_if_a_new_key_is_revoked_at_once_the_previous_key_is_used() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    driver.get("b")
    assert driver.get("a") == ["b", "a"]
    assert driver.states() == {"a": "previous", "b": "active"}, "one request is no proof"
    assert driver.get("a") == ["b", "a"]
    assert driver.states() == {"a": "active", "b": "rejected"}
    assert driver.ring.needs_reading


def test_going_back_to_the_previous_key_makes_it_a_candidate() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    driver.get("b")
    driver.read("a")
    assert driver.states() == {"a": "candidate", "b": "active"}
    assert driver.get("a", "b") == ["a"]


def test_a_candidate_that_is_replaced_untried_is_kept_as_a_previous_key() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    driver.read("wrong")
    assert driver.get("b") == ["wrong", "a", "b"]


def test_the_number_of_previous_keys_is_bounded() -> None:
    driver = Driver("a")
    driver.get("a")
    for name in "bcdef":
        driver.read(name)
        driver.get(name)
    assert len(driver.ring.known.records) == 1 + MOST_UNLISTED
    assert driver.states() == {"d": "previous", "e": "previous", "f": "active"}


def test_of_many_rejected_keys_the_latest_and_one_that_was_once_accepted_are_kept() -> None:
    driver = Driver("good")
    driver.get("good")
    driver.reject_twice()
    for name in "abcdef":
        driver.read(name)
        driver.get()
    assert {"good", "f"} < set(driver.states())
    assert len(driver.states()) == 3


def test_a_source_may_list_the_previous_key_too() -> None:
    driver = Driver("new", "old")
    assert driver.states() == {"new": "candidate", "old": "previous"}
    assert driver.get("old") == ["new", "old"]
    assert driver.warnings() == [KeyWarning.CANDIDATE_REJECTED]


def test_in_a_hold_period_requests_wait_for_a_new_key() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    assert driver.get() == ["a", "kept"]
    assert driver.get() == ["a", "held"]
    assert driver.ring.state(driver.now) is KeyringState.HOLDING
    assert driver.ring.needs_reading
    assert driver.get("b") == ["a", "held"], "another request probes"
    assert driver.get("b") == ["held"]
    assert driver.ring.choose(driver.request(), driver.now) is None
    driver.read("b")
    assert driver.ring.state(driver.now) is KeyringState.SERVING
    assert driver.get("b") == ["b"]


def test_after_a_hold_period_callers_get_the_401_at_once() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    driver.reject_twice()
    driver.ring.reading_failed()
    driver.now += 5.0
    assert driver.ring.state(driver.now) is KeyringState.EXHAUSTED
    assert driver.warnings() == [KeyWarning.NO_KEY_ACCEPTED]
    assert [driver.get() for _ in range(3)] == [["a", "401"]] * 3
    assert driver.get("a") == ["a"]
    driver.reject_twice()
    assert driver.ring.state(driver.now) is KeyringState.EXHAUSTED, "no second hold period so soon"
    driver.now += REARM_S
    driver.get("a")
    driver.reject_twice()
    assert driver.ring.state(driver.now) is KeyringState.HOLDING


def test_a_new_key_in_the_source_allows_another_hold_period() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    driver.reject_twice()
    driver.read("b")
    assert driver.get() == ["b", "a", "held"], "a key rejected before the hold period is probed at once"


def test_a_key_that_has_never_worked_causes_no_hold_period() -> None:
    driver = Driver("wrong", hold_s=5.0)
    history = driver.request()
    use = driver.choose(history)
    assert driver.settle(use, REJECTED, history) is Ruling.WAIT
    assert driver.ring.next_tick_s(driver.now) == pytest.approx(driver.now + READING_S), "for one reading only"
    driver.read("wrong")
    assert driver.ring.rule(use, history, driver.now) is Ruling.RELAY
    assert driver.ring.state(driver.now) is KeyringState.EXHAUSTED
    assert driver.get() == ["wrong", "401"]
    assert driver.kinds() == [KeyEventKind.CANDIDATE_FOUND, KeyEventKind.CANDIDATE_REJECTED]
    assert driver.get("wrong") == ["wrong"]
    assert driver.states() == {"wrong": "active"}


def test_a_request_that_may_not_wait_gets_the_401() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.reject_twice()
    history = driver.request()
    use = driver.choose(history, may_wait=False)
    assert use.purpose is Purpose.LAST_RESORT
    assert driver.settle(use, REJECTED, history) is Ruling.RELAY


def test_a_request_on_a_rejected_key_is_sent_again_if_a_new_key_came_meanwhile() -> None:
    driver = Driver("a", hold_s=0.0)
    driver.get()
    driver.ring.reading_failed()
    history = driver.request()
    use = driver.choose(history)
    driver.read("b")
    assert driver.settle(use, REJECTED, history) is Ruling.SEND_AGAIN
    assert driver.choose(history).record.key == key("b")


def test_without_a_hold_period_requests_still_wait_for_the_reading() -> None:
    driver = Driver("a", hold_s=0.0)
    driver.get("a")
    assert driver.get() == ["a", "kept"]
    assert driver.get() == ["a", "kept"], "for the reading only"
    large = driver.request(may_test_candidate=False)
    assert driver.ring.wait_until_s(large, driver.now) == pytest.approx(driver.now + READING_S, abs=0.1)
    driver.ring.reading_failed()
    assert driver.ring.wait_until_s(large, driver.now) is None
    assert driver.get() == ["a", "401"]


def test_one_request_at_a_time_probes_in_a_hold_period() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    driver.reject_twice()
    first, second = driver.request(), driver.request()
    assert driver.ring.wait_until_s(first, driver.now) is None
    assert driver.ring.wait_until_s(second, driver.now) == driver.now + PROBE_S
    probe = driver.choose(first)
    assert probe.purpose is Purpose.REJECTED_PROBE
    driver.settle(probe, ACCEPTED)
    assert driver.ring.wait_until_s(second, driver.now) is None
    assert driver.states() == {"a": "active"}


def test_a_request_rejected_with_the_key_probes_it_after_a_pause_and_others_at_once() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.get()
    rejected, other = driver.request(), driver.request()
    driver.settle(driver.choose(rejected), REJECTED, rejected)
    assert driver.ring.wait_until_s(rejected, driver.now) == driver.now + PROBE_EVERY_S
    assert driver.ring.wait_until_s(other, driver.now) is None
    driver.settle(driver.choose(other), REJECTED, other)
    driver.now += PROBE_EVERY_S
    assert driver.ring.wait_until_s(rejected, driver.now) is None
    assert driver.choose(rejected).purpose is Purpose.REJECTED_PROBE


def test_other_requests_use_a_doubted_key_and_their_success_decides_that_the_401_is_relayed() -> None:
    driver = Driver("a")
    driver.get("a")
    history = driver.request(target="GET /secret")
    use = driver.choose(history)
    assert driver.settle(use, REJECTED, history) is Ruling.WAIT
    assert driver.ring.needs_reading
    assert driver.ring.rule(use, history, driver.now) is Ruling.WAIT
    assert driver.get("a") == ["a"]
    assert driver.ring.rule(use, history, driver.now) is Ruling.RELAY
    assert driver.states() == {"a": "active"}
    assert driver.kinds()[-1] is KeyEventKind.REQUEST_REJECTED
    assert driver.events[-1].target == "GET /secret"


def test_the_reason_of_a_401_is_the_key_or_the_request_as_soon_as_that_is_known() -> None:
    driver = Driver("a")
    driver.get("a")

    def reason() -> str:
        return driver.ring.known.reason_of_401().partition(":")[0]

    history = driver.request(target="GET /secret")
    driver.settle(driver.choose(history), REJECTED, history)
    assert reason() == "unauthorized"
    driver.get("a")
    assert reason() == "request_rejected"
    driver.reject_twice()
    assert driver.states() == {"a": "rejected"}
    assert reason() == "key_rejected"


def test_the_mistake_in_a_key_names_its_source_and_never_quotes_it() -> None:
    mistaken, right = Driver("changeme"), Driver("0f3a9c")
    assert right.ring.known.mistakes() == []
    (sentence,) = mistaken.ring.known.mistakes()
    assert sentence == "the API key of test:changeme looks like the placeholder of an example"


def test_a_target_that_is_known_as_unauthorized_gets_its_401_at_once_and_is_no_evidence() -> None:
    driver = Driver("a")
    driver.get("a")
    assert driver.get(target="GET /secret") == ["a", "kept"]
    driver.get("a")
    driver.read("a")
    before = len(driver.events)
    assert [driver.get(target="GET /secret") for _ in range(3)] == [["a", "401"]] * 3
    assert driver.get(target="GET /other") == ["a", "kept"], "the only evidence"
    assert driver.get(target="GET /secret") == ["a", "401"]
    assert driver.states() == {"a": "active"}
    assert len(driver.events) == before
    driver.now += REMEMBERED_S
    driver.get("a")
    assert driver.get(target="GET /secret") == ["a", "kept"], "permissions change"


def test_many_401s_of_one_target_do_not_reject_a_key_and_a_second_target_does() -> None:
    driver = Driver("a")
    driver.get("a")
    assert [driver.get(target="GET /x") for _ in range(5)] == [["a", "kept"]] * 5
    assert driver.states() == {"a": "active"}
    assert driver.get(target="GET /y") == ["a", "held"]
    assert driver.states() == {"a": "rejected"}


def test_a_probe_of_the_key_manager_decides_about_a_doubted_key() -> None:
    for verdict, state in ((ACCEPTED, "active"), (REJECTED, "rejected"), (UNKNOWN, "active")):
        driver = Driver("a", requests_probe=False)
        driver.get("a")
        assert driver.ring.choose_for_probe(driver.now) is None
        driver.get()
        probe = driver.ring.choose_for_probe(driver.now)
        assert probe is not None
        driver.events += driver.ring.settle(probe, verdict, driver.now)
        assert driver.states() == {"a": state}
        assert (driver.ring.choose_for_probe(driver.now) is None) == (verdict is not UNKNOWN)


def test_a_probe_of_the_key_manager_decides_if_requests_do_not() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a", target="GET /same")
    assert driver.get(target="GET /same") == ["a", "kept"]
    began_s = driver.now
    assert driver.get(target="GET /same") == ["a", "kept"]
    assert driver.ring.known.next_probe_s(requests_probe=True) == began_s + NOTICE_S
    assert driver.ring.choose_for_probe(driver.now) is None
    driver.now = began_s + NOTICE_S
    probe = driver.ring.choose_for_probe(driver.now)
    assert probe is not None
    assert driver.ring.choose_for_probe(driver.now) is None
    driver.events += driver.ring.settle(probe, REJECTED, driver.now)
    assert driver.states() == {"a": "rejected"}
    assert KeyEventKind.ACTIVE_REJECTED in driver.kinds()
    assert driver.ring.known.next_probe_s(requests_probe=True) == math.inf


def test_an_undecided_probe_is_repeated_at_growing_pauses_while_401s_come() -> None:
    driver = Driver("a", hold_s=0.0)
    driver.get("a")
    probes_s = []
    while driver.now < 240.0:
        driver.get(target="GET /same")
        if (probe := driver.ring.choose_for_probe(driver.now)) is not None:
            probes_s.append(driver.now)
            driver.ring.settle(probe, UNKNOWN, driver.now)
            assert driver.ring.known.next_probe_s(requests_probe=True) == math.inf, "none without another 401"
        driver.now += 0.05
    assert [round(later - earlier) for earlier, later in pairwise(probes_s)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert driver.states() == {"a": "active"}


def test_401s_cause_readings_at_a_pace_that_slows_until_a_new_key_comes() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    readings_s = []
    while driver.now < 200.0:
        assert driver.get()[-1] == "kept"  # of a target of its own
        if driver.ring.needs_reading:
            readings_s.append(driver.now)
            driver.read("a")
        assert driver.get("a") == ["a"]
        driver.now += 0.3
    pauses_s = [round(later - earlier) for earlier, later in pairwise(readings_s)]
    assert pauses_s == [1, 2, 4, 8, 16, 32, 60, 60]
    driver.read("b", "a")
    assert driver.get("b") == ["b"]
    assert driver.get()[-1] == "kept"
    assert driver.ring.needs_reading


def test_after_a_quiet_minute_the_pace_of_readings_begins_anew() -> None:
    pace = ReadingPace()
    assert [pace.start_reading(now) for now in (0.0, 0.5, 1.0, 2.5, 3.0)] == [True, False, True, False, True]
    quiet_s = 3.0 + 4.0 + LONGEST_PAUSE_S
    assert [pace.start_reading(quiet_s + s) for s in (0.0, 0.5, 1.0)] == [True, False, True]


def test_if_nothing_decides_the_401_is_the_response_and_the_wait_is_reported() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    history = driver.request(target="GET /x")
    use = driver.choose(history)
    driver.settle(use, REJECTED, history)
    driver.read("a")
    assert driver.ring.next_tick_s(driver.now) == pytest.approx(driver.now + NOTICE_S)
    assert driver.ring.tick(driver.now) == []
    driver.now += NOTICE_S
    (started,) = driver.ring.tick(driver.now)
    assert started.kind is KeyEventKind.HOLD_STARTED
    assert driver.ring.rule(use, history, driver.now) is Ruling.WAIT
    assert driver.ring.is_waiting(driver.now)
    driver.now = driver.ring.next_tick_s(driver.now)
    (ended,) = driver.ring.tick(driver.now)
    assert (ended.kind, ended.lasted_s) == (KeyEventKind.HOLD_ENDED, pytest.approx(5.0))
    assert driver.ring.rule(use, history, driver.now) is Ruling.RELAY
    assert driver.get(target="GET /x") == ["a", "401"], "no second wait for the same doubt"
    assert driver.warnings() == NO_WARNING
    driver.get(target="GET /x")
    assert driver.warnings() == [KeyWarning.DOUBTED], "every request is rejected"
    driver.get("a")
    assert driver.warnings() == NO_WARNING
    driver.get()
    assert driver.ring.next_tick_s(driver.now) == pytest.approx(driver.now + READING_S), "a short wait so soon"
    driver.read("a")
    assert driver.ring.next_tick_s(driver.now) == pytest.approx(driver.now + BRIEF_S)


def test_a_new_key_sends_a_request_again_whose_401_was_kept() -> None:
    driver = Driver("a")
    driver.get("a")
    history = driver.request()
    use = driver.choose(history)
    driver.settle(use, REJECTED, history)
    driver.read("b")
    assert driver.ring.rule(use, history, driver.now) is Ruling.SEND_AGAIN
    assert driver.choose(history).record.key == key("b")


def test_a_request_whose_401_was_not_kept_is_repeated_when_the_key_works_again() -> None:
    driver = Driver("a")
    driver.get("a")
    history = driver.request()
    driver.get()
    assert driver.settle(driver.choose(history), REJECTED, history) is Ruling.SEND_AGAIN
    assert driver.get("a") == ["a"], "the next request probes"
    again = driver.choose(history)
    assert again.purpose is Purpose.REPEAT
    assert driver.settle(again, REJECTED, history) is Ruling.RELAY
    assert driver.states() == {"a": "active"}


def test_a_repeat_waits_like_other_requests_if_the_key_is_revoked_meanwhile() -> None:
    driver = Driver("a")
    driver.get("a")
    history = driver.request()
    driver.get()
    driver.settle(driver.choose(history), REJECTED, history)
    driver.get("a")
    again = driver.choose(history)
    driver.read("b")
    driver.get("b")
    driver.read("b")
    driver.settle(again, REJECTED, history)
    assert driver.choose(history).record.key == key("b")


def test_a_rejection_older_than_an_acceptance_does_not_count_but_waits_for_the_next_response() -> None:
    driver = Driver("a")
    driver.get("a")
    history = driver.request()
    slow = driver.choose(history)
    driver.now += 0.01
    assert driver.get("a") == ["a"]
    assert driver.settle(slow, REJECTED, history) is Ruling.WAIT
    assert driver.get() == ["a", "kept"]
    assert driver.states() == {"a": "active"}, "only one rejection counts"
    driver.get("a")
    assert driver.ring.rule(slow, history, driver.now) is Ruling.RELAY


def test_a_candidate_that_was_rejected_only_by_a_forbidden_request_becomes_a_candidate_again() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    assert driver.get(target="GET /secret") == ["b", "a", "kept"]
    assert driver.states() == {"a": "active", "b": "rejected"}
    assert driver.get("a") == ["a"]
    assert driver.states() == {"a": "active", "b": "candidate"}
    assert driver.get("a", "b") == ["b"]
    assert driver.states() == {"a": "previous", "b": "active"}
    assert driver.get(target="GET /secret") == ["b", "401"]


def test_an_acceptance_older_than_the_rejection_does_not_count() -> None:
    driver = Driver("a")
    driver.get("a")
    slow = driver.choose()
    driver.reject_twice()
    driver.settle(slow, ACCEPTED)
    assert driver.states() == {"a": "rejected"}


def test_responses_may_come_in_another_order_than_their_requests() -> None:
    driver = Driver("a")
    driver.get("a")
    first, second = driver.choose(), driver.choose()
    driver.settle(second, ACCEPTED)
    driver.settle(first, ACCEPTED)
    (record,) = driver.ring.known.records
    assert record.accepted_seq == second.chosen_seq


def test_the_response_to_a_probe_may_come_after_the_key_became_active() -> None:
    driver = Driver("a")
    slow = driver.choose()
    driver.now += PROBE_S
    driver.settle(driver.choose(), ACCEPTED)
    assert slow.purpose is Purpose.CANDIDATE_PROBE
    driver.settle(slow, ACCEPTED)
    assert driver.states() == {"a": "active"}
    assert driver.kinds() == [KeyEventKind.CANDIDATE_FOUND, KeyEventKind.ACTIVATED]


def test_a_usable_key_needs_no_waiting() -> None:
    driver = Driver("a", hold_s=5.0)
    assert driver.ring.has_usable_key()
    driver.get()
    assert not driver.ring.has_usable_key()


def test_a_late_response_for_the_previous_key_leaves_the_active_key() -> None:
    driver = Driver("a")
    driver.get("a")
    slow = [driver.choose() for _ in range(4)]
    driver.read("b")
    driver.get("b")
    driver.settle(slow[0], ACCEPTED)
    assert driver.states() == {"a": "previous", "b": "active"}
    driver.settle(slow[1], REJECTED)
    driver.settle(slow[2], REJECTED)
    assert driver.states() == {"b": "active"}
    driver.settle(slow[3], REJECTED)  # the key is no longer known
    assert driver.states() == {"b": "active"}


def test_the_serving_key_is_the_accepted_one_and_its_age_is_checked() -> None:
    driver = Driver("a")
    assert driver.ring.known.serving_key.key == key("a")
    driver.get("a")
    driver.read("b")
    assert (driver.ring.known.serving_key.key, driver.ring.known.source_key.key) == (key("a"), key("b"))
    assert driver.warnings(wall_now_s=100.0, max_age_s=101.0) == NO_WARNING
    assert driver.warnings(wall_now_s=100.0, max_age_s=100.0) == [KeyWarning.OLD]
    assert driver.ring.known.serving_key.state is KeyState.ACTIVE


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, ACCEPTED),
        (204, ACCEPTED),
        (304, ACCEPTED),
        (401, REJECTED),
        (403, UNKNOWN),
        (404, UNKNOWN),
        (301, UNKNOWN),
        (503, UNKNOWN),
    ],
)
def test_only_success_and_a_304_accept_a_key_and_only_401_rejects_it(status: int, verdict: KeyVerdict) -> None:
    assert verdict_of(status) is verdict


def test_a_fingerprint_is_8_hex_digits_and_depends_on_the_key_alone() -> None:
    assert ApiKey.parse("secret", "here").fingerprint() == ApiKey.parse("secret", "there").fingerprint()
    assert len(bytes.fromhex(key("a").fingerprint())) == 4
    assert key("a").fingerprint() != key("b").fingerprint()


def test_the_remembered_targets_are_bounded() -> None:
    memory = UnauthorizedTargets()
    for number in range(2 * MOST_TARGETS):
        memory.note(f"GET /{number}", 0.0)
    assert [memory.knows(f"GET /{number}", 0.0) for number in (0, MOST_TARGETS - 1)] == [False, False]
    assert memory.knows(f"GET /{MOST_TARGETS}", 0.0)
    assert len(memory._until_s) == MOST_TARGETS


def test_the_targets_of_one_doubt_are_bounded() -> None:
    driver = Driver("a")
    driver.get("a")
    slow = [driver.choose() for _ in range(2 * MOST_TARGETS)]
    driver.get("a")
    for use in slow:
        driver.settle(use, REJECTED)
    (record,) = driver.ring.known.records
    assert record.doubt is not None
    assert len(record.doubt.first_rejections) == MOST_TARGETS
    assert record.state.value == "active"


def test_an_old_doubt_about_the_previous_key_begins_anew_when_that_key_is_the_only_one_left() -> None:
    driver = Driver("a")
    driver.get("a")
    assert driver.get(target="GET /x") == ["a", "kept"]
    driver.read("b")
    driver.get("b")
    driver.now += 60.0
    history = driver.request(target="GET /x")
    use = driver.choose(history)
    assert driver.settle(use, REJECTED, history) is Ruling.WAIT
    driver.settle(driver.choose(), REJECTED)
    assert driver.states() == {"a": "previous", "b": "rejected"}
    driver.ring.tick(driver.now)
    assert driver.ring.rule(use, history, driver.now) is Ruling.SEND_AGAIN
    assert driver.settle(driver.choose(history), REJECTED, history) is Ruling.WAIT


def test_an_old_doubt_also_begins_anew_when_the_rejection_of_a_previous_key_leaves_only_that_key() -> None:
    driver = Driver("a", hold_s=5.0)
    driver.get("a")
    assert driver.get(target="GET /x") == ["a", "kept"]
    driver.read("b")
    driver.get("b")
    driver.now += 30.0
    assert driver.get(target="GET /x") == ["b", "kept"]
    driver.read("c")
    driver.get("c")
    assert driver.get(target="GET /x") == ["c", "kept"]
    assert driver.get(target="GET /y") == ["c", "b", "a", "held"]
    assert driver.ring.state(driver.now) is KeyringState.HOLDING


def test_an_acceptance_clears_only_the_targets_that_were_rejected_before_its_request() -> None:
    driver = Driver("a")
    outdated = driver.choose()
    driver.get("a")
    assert driver.get(target="GET /x") == ["a", "kept"]
    use = driver.choose()
    driver.settle(outdated, REJECTED, driver.request(target="GET /y"))
    driver.settle(use, ACCEPTED)
    assert driver.events[-1].target == "GET /x"
    doubt = driver.ring.known.doubt
    assert doubt is not None
    assert list(doubt.first_rejections) == ["GET /y"]
    assert driver.states() == {"a": "active"}


@pytest.mark.parametrize("state", ["rejected", "candidate"])
def test_a_401_of_a_request_from_before_an_acceptance_changes_nothing_later(state: str) -> None:
    driver = Driver("a")
    outdated = driver.choose()
    driver.get("a")
    if state == "rejected":
        driver.reject_twice()
    else:
        driver.read("b")
        driver.get("b")
        driver.read("a")
    assert driver.states()["a"] == state
    before = len(driver.events)
    driver.settle(outdated, REJECTED, driver.request())
    assert driver.states()["a"] == state
    assert len(driver.events) == before


def test_a_rejected_new_key_stays_rejected_while_one_of_its_targets_is_not_known_as_unauthorized() -> None:
    driver = Driver("a")
    driver.get("a")
    driver.read("b")
    assert driver.get("a", target="GET /x") == ["b", "a"]
    driver.get(target="GET /y")
    driver.get("a")
    assert driver.events[-1].target == "GET /y"
    assert driver.states() == {"a": "active", "b": "rejected"}
