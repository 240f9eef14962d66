"""The keyring by example; `test_keyring_properties.py` has what is always true."""

import pytest

from nanonets_proxy.core.keys.api_key import ApiKey
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
    verdict_of,
)
from nanonets_proxy.core.keys.keyring import (
    MOST_PREVIOUS,
    PROBE_EVERY_S,
    READING_S,
    REARM_S,
    TRIAL_S,
    Keyring,
    KeyringPolicy,
)

ACCEPTED, REFUSED, UNKNOWN = KeyVerdict.ACCEPTED, KeyVerdict.REJECTED, KeyVerdict.UNKNOWN
NO_WARNING: list[KeyWarning] = []


def key(name: str) -> ApiKey:
    return ApiKey.parse(name, f"test:{name}")


class Shell:
    """A ring, a clock, and short words for what a shell does."""

    def __init__(self, *names: str, **policy: float | bool) -> None:
        self.now = 0.0
        self.ring = Keyring(KeyringPolicy(**policy))  # type: ignore[arg-type]  # each test gives its own fields
        self.events: list[KeyEvent] = []
        self.read(*names)

    def read(self, *names: str, on_demand: bool = False) -> None:
        self.events += self.ring.read([FoundKey(key(name), 0.0) for name in names], self.now, on_demand=on_demand)

    def choose(
        self, history: KeyHistory | None = None, *, may_test_candidate: bool = True, may_hold: bool = True
    ) -> KeyUse:
        use = self.ring.choose_fast() if history is None or not history.rejections else None
        use = use or self.ring.choose(history or KeyHistory(may_test_candidate), self.now, may_hold=may_hold)
        assert use is not None
        return use

    def settle(self, use: KeyUse, verdict: KeyVerdict, history: KeyHistory | None = None) -> bool:
        """Whether the answer is final."""
        self.now += 0.01
        history = history or KeyHistory(may_test_candidate=True)
        self.events += self.ring.settle(use, verdict, self.now, history)
        if verdict is not REFUSED:
            return True
        return self.ring.is_final(use, history, self.now)

    def get(self, *accepted: str, may_test_candidate: bool = True) -> list[str]:
        """One request until its answer: the names of the keys it went out with, and `held` or `401` at its end."""
        history, names = KeyHistory(may_test_candidate), []
        while True:
            if self.ring.hold_until_s(history, self.now) is not None:
                return [*names, "held"]
            use = self.choose(history)
            name = use.record.key.name.removeprefix("test:")
            names.append(name)
            if name in accepted:
                self.settle(use, ACCEPTED)
                return names
            if self.settle(use, REFUSED, history):
                return [*names, "401"]

    def states(self) -> dict[str, str]:
        return {r.key.name.removeprefix("test:"): r.state.value for r in self.ring.records}

    def kinds(self) -> list[KeyEventKind]:
        return [event.kind for event in self.events]

    def warnings(self, wall_now_s: float = 0.0, max_age_s: float = 0.0) -> list[KeyWarning]:
        return self.ring.warnings(wall_now_s=wall_now_s, max_age_s=max_age_s)


def test_the_first_key_is_active_once_it_was_accepted() -> None:
    shell = Shell("a")
    assert shell.states() == {"a": "candidate"}
    assert shell.get("a") == ["a"]
    assert shell.states() == {"a": "active"}
    assert shell.kinds() == [KeyEventKind.CANDIDATE_FOUND, KeyEventKind.ACTIVATED]


def test_the_next_request_tries_a_new_key_and_the_old_one_is_kept_for_the_grace_time() -> None:
    shell = Shell("a", grace_s=60.0)
    shell.get("a")
    shell.read("b")
    assert shell.get("a", "b") == ["b"]
    assert shell.states() == {"a": "previous", "b": "active"}
    shell.now += 60.0
    shell.get("b")
    assert shell.states() == {"b": "active"}


def test_one_request_at_a_time_tries_a_candidate_the_others_go_with_the_active_key() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    trial, other = shell.choose(), shell.choose()
    assert (trial.record.key, trial.purpose) == (key("b"), Purpose.TRIAL)
    assert (other.record.key, other.purpose) == (key("a"), Purpose.PLAIN)
    shell.settle(trial, UNKNOWN)
    assert shell.choose().purpose is Purpose.TRIAL


def test_there_is_a_usual_key_while_the_active_one_stands_before_all_others_for_good() -> None:
    shell = Shell("a", grace_s=60.0)
    assert shell.ring.choose_fast() is None  # a candidate
    shell.get("a")
    usual = shell.ring.choose_fast()
    assert usual is not None
    assert (usual.record.key, usual.purpose) == (key("a"), Purpose.PLAIN)
    shell.read("b")
    assert shell.ring.choose_fast() is None  # another candidate
    shell.get("b")
    assert shell.ring.choose_fast() is None  # the one before it has its grace time
    shell.now += 60.0
    shell.get("b")
    assert shell.ring.choose_fast() is not None
    shell.settle(shell.choose(), REFUSED)
    assert shell.ring.choose_fast() is None


def test_a_trial_that_takes_long_leaves_room_for_another() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    shell.choose()
    shell.now += TRIAL_S
    assert shell.choose().purpose is Purpose.TRIAL


def test_what_cannot_be_sent_again_cheaply_tries_no_candidate_unless_there_is_nothing_else() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    assert shell.get("a", "b", may_test_candidate=False) == ["a"]
    assert shell.get("b", may_test_candidate=False) == ["a", "b"]


def test_with_a_probe_no_request_tries_a_candidate() -> None:
    shell = Shell("a", requests_probe=False)
    shell.get("a")
    shell.read("b")
    assert shell.get("a", "b") == ["a"]
    probe = shell.ring.choose_candidate()
    assert probe is not None
    shell.settle(probe, ACCEPTED)
    assert shell.ring.choose_candidate() is None
    assert shell.get("a", "b") == ["b"]


def test_a_wrong_candidate_is_put_aside_and_nobody_notices() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("wrong")
    assert shell.get("a") == ["wrong", "a"]
    assert [shell.get("a") for _ in range(3)] == [["a"]] * 3
    assert shell.states() == {"a": "active", "wrong": "refused"}
    assert shell.warnings() == [KeyWarning.CANDIDATE_REJECTED]
    assert shell.kinds()[-1] is KeyEventKind.CANDIDATE_REJECTED
    assert not shell.ring.wants_reading


def test_reading_a_wrong_key_again_changes_nothing_but_on_demand_it_gets_another_chance() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    shell.get("a")
    shell.read("b")
    assert shell.get("a", "b") == ["a"]
    shell.read("b", on_demand=True)
    assert shell.get("a", "b") == ["b"]
    assert shell.warnings() == NO_WARNING


def test_a_wrong_key_that_is_taken_back_is_forgotten() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("wrong")
    shell.get("a")
    shell.read("a")
    assert shell.states() == {"a": "active"}
    assert shell.warnings() == NO_WARNING


def test_a_revoked_key_is_replaced_by_the_new_one_within_the_same_request() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    plain = [shell.choose(may_test_candidate=False) for _ in range(3)]
    history = [KeyHistory(may_test_candidate=False) for _ in plain]
    for use, one in zip(plain, history, strict=True):
        assert not shell.settle(use, REFUSED, one)
        assert shell.choose(one).record.key == key("b")


def test_a_new_key_that_is_revoked_at_once_falls_back_to_the_previous_one() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    shell.get("b")
    assert shell.get("a") == ["b", "a"]
    assert shell.states() == {"a": "active", "b": "refused"}
    assert shell.ring.wants_reading


def test_going_back_to_the_previous_key_is_a_rotation_like_any_other() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    shell.get("b")
    shell.read("a")
    assert shell.states() == {"a": "candidate", "b": "active"}
    assert shell.get("a", "b") == ["a"]


def test_a_candidate_that_is_replaced_untried_is_kept_for_when_nothing_else_works() -> None:
    shell = Shell("a")
    shell.get("a")
    shell.read("b")
    shell.read("wrong")
    assert shell.get("b") == ["wrong", "a", "b"]


def test_only_so_many_previous_keys_are_kept() -> None:
    shell = Shell("a")
    shell.get("a")
    for name in "bcdef":
        shell.read(name)
        shell.get(name)
    assert len(shell.ring.records) == 1 + MOST_PREVIOUS
    assert shell.states() == {"d": "previous", "e": "previous", "f": "active"}


def test_of_many_wrong_keys_the_latest_are_kept_and_the_one_that_once_worked() -> None:
    shell = Shell("good")
    shell.get("good")
    shell.get()
    for name in "abcdef":
        shell.read(name)
        shell.get()
    assert {"good", "f"} < set(shell.states())
    assert len(shell.states()) == 3


def test_a_source_may_give_the_key_before_too() -> None:
    shell = Shell("new", "old")
    assert shell.states() == {"new": "candidate", "old": "previous"}
    assert shell.get("old") == ["new", "old"]
    assert shell.warnings() == [KeyWarning.CANDIDATE_REJECTED]


def test_in_the_gap_requests_are_held_until_a_new_key_comes() -> None:
    shell = Shell("a", hold_s=5.0)
    shell.get("a")
    assert shell.get() == ["a", "held"]
    assert shell.ring.state(shell.now) is KeyringState.HOLDING
    assert shell.ring.wants_reading
    assert shell.get("b") == ["a", "held"], "another one probes"
    assert shell.get("b") == ["held"]
    assert shell.ring.choose(KeyHistory(may_test_candidate=True), shell.now) is None
    shell.read("b")
    assert shell.ring.state(shell.now) is KeyringState.SERVING
    assert shell.get("b") == ["b"]


def test_the_gap_is_spent_once_then_callers_get_the_401_at_once() -> None:
    shell = Shell("a", hold_s=5.0)
    shell.get("a")
    shell.get()
    shell.ring.unread()
    shell.now += 5.0
    assert shell.ring.state(shell.now) is KeyringState.EXHAUSTED
    assert shell.warnings() == [KeyWarning.NO_KEY_ACCEPTED]
    assert [shell.get() for _ in range(3)] == [["a", "401"]] * 3
    assert shell.get("a") == ["a"]
    assert shell.get() == ["a", "a", "401"], "no second gap so soon"
    shell.now += REARM_S
    shell.get("a")
    assert shell.get() == ["a", "held"]


def test_a_new_key_in_the_source_allows_another_gap() -> None:
    shell = Shell("a", hold_s=5.0)
    shell.get()
    shell.read("b")
    assert shell.get() == ["b", "a", "held"], "what was refused before the gap is tried again at once"


def test_whoever_may_not_be_held_gets_the_401() -> None:
    shell = Shell("a")
    shell.get()
    history = KeyHistory(may_test_candidate=True)
    use = shell.choose(history, may_hold=False)
    assert use.purpose is Purpose.LAST
    assert shell.settle(use, REFUSED, history)


def test_a_last_attempt_goes_again_if_a_new_key_came_meanwhile() -> None:
    shell = Shell("a", hold_s=0.0)
    shell.get()
    shell.ring.unread()
    history = KeyHistory(may_test_candidate=True)
    use = shell.choose(history)
    shell.read("b")
    assert not shell.settle(use, REFUSED, history)
    assert shell.choose(history).record.key == key("b")


def test_without_a_gap_the_reading_is_waited_for_all_the_same() -> None:
    shell = Shell("a", hold_s=0.0)
    assert shell.get() == ["a", "held"]
    large = KeyHistory(may_test_candidate=False)
    assert shell.ring.hold_until_s(large, shell.now) == pytest.approx(shell.now + READING_S, abs=0.1)
    shell.ring.unread()
    assert shell.ring.hold_until_s(large, shell.now) is None
    assert shell.get() == ["a", "401"]


def test_one_request_at_a_time_probes_in_the_gap() -> None:
    shell = Shell("a", hold_s=5.0)
    shell.get("a")
    shell.settle(shell.choose(), REFUSED)
    first, second = KeyHistory(may_test_candidate=True), KeyHistory(may_test_candidate=True)
    assert shell.ring.hold_until_s(first, shell.now) is None
    assert shell.ring.hold_until_s(second, shell.now) == shell.now + TRIAL_S
    probe = shell.choose(first)
    assert probe.purpose is Purpose.PROBE
    shell.settle(probe, ACCEPTED)
    assert shell.ring.hold_until_s(second, shell.now) is None
    assert shell.states() == {"a": "active"}


def test_who_was_refused_leaves_the_first_probe_to_others_and_takes_a_later_one() -> None:
    shell = Shell("a")
    shell.get("a")
    refused, other = KeyHistory(may_test_candidate=True), KeyHistory(may_test_candidate=True)
    shell.settle(shell.choose(refused), REFUSED, refused)
    assert shell.ring.hold_until_s(refused, shell.now) == shell.now + PROBE_EVERY_S
    assert shell.ring.hold_until_s(other, shell.now) is None
    shell.settle(shell.choose(other), REFUSED, other)
    shell.now += PROBE_EVERY_S
    assert shell.ring.hold_until_s(refused, shell.now) is None
    assert shell.choose(refused).purpose is Purpose.PROBE


def test_a_request_refused_for_its_own_sake_gets_its_401_and_the_key_serves_on() -> None:
    shell = Shell("a")
    shell.get("a")
    history = KeyHistory(may_test_candidate=True)
    shell.settle(shell.choose(history), REFUSED, history)
    assert shell.get("a") == ["a"], "the next request probes"
    again = shell.choose(history)
    assert again.purpose is Purpose.REPEAT
    assert shell.settle(again, REFUSED, history)
    assert shell.states() == {"a": "active"}
    assert shell.get("a") == ["a"]


def test_a_repeat_is_held_like_the_others_if_the_key_ends_meanwhile() -> None:
    shell = Shell("a")
    shell.get("a")
    history = KeyHistory(may_test_candidate=True)
    shell.settle(shell.choose(history), REFUSED, history)
    shell.get("a")
    again = shell.choose(history)
    shell.settle(shell.choose(), REFUSED)
    assert not shell.settle(again, REFUSED, history)
    assert shell.ring.choose(history, shell.now) is None


def test_a_refusal_older_than_an_acceptance_says_nothing() -> None:
    shell = Shell("a")
    shell.get("a")
    history = KeyHistory(may_test_candidate=True)
    slow = shell.choose(history)
    shell.now += 0.01
    assert shell.get("a") == ["a"]
    assert not shell.settle(slow, REFUSED, history)
    assert shell.states() == {"a": "active"}
    assert shell.choose(history).purpose is Purpose.PLAIN, "had the key ended since, this one would count"


def test_an_acceptance_older_than_the_refusal_says_nothing() -> None:
    shell = Shell("a")
    shell.get("a")
    slow = shell.choose()
    shell.settle(shell.choose(), REFUSED)
    shell.settle(slow, ACCEPTED)
    assert shell.states() == {"a": "refused"}


def test_a_late_answer_for_the_previous_key_changes_nothing() -> None:
    shell = Shell("a")
    shell.get("a")
    slow = [shell.choose(), shell.choose()]
    shell.read("b")
    shell.get("b")
    shell.settle(slow[0], ACCEPTED)
    assert shell.states() == {"a": "previous", "b": "active"}
    shell.settle(slow[1], REFUSED)
    assert shell.states() == {"b": "active"}
    shell.settle(slow[1], REFUSED)  # of a key that is no longer known
    assert shell.states() == {"b": "active"}
    assert not shell.ring.wants_reading


def test_the_key_that_serves_is_shown_as_the_best_and_its_age_is_watched() -> None:
    shell = Shell("a")
    assert shell.ring.best.key == key("a")
    shell.get("a")
    shell.read("b")
    assert (shell.ring.best.key, shell.ring.head.key) == (key("a"), key("b"))
    assert shell.warnings(wall_now_s=100.0, max_age_s=101.0) == NO_WARNING
    assert shell.warnings(wall_now_s=100.0, max_age_s=100.0) == [KeyWarning.OLD]
    assert shell.ring.best.state is KeyState.ACTIVE


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, ACCEPTED),
        (204, ACCEPTED),
        (401, REFUSED),
        (403, UNKNOWN),
        (404, UNKNOWN),
        (301, UNKNOWN),
        (503, UNKNOWN),
    ],
)
def test_only_success_proves_a_key_and_only_401_refuses_it(status: int, verdict: KeyVerdict) -> None:
    assert verdict_of(status) is verdict


def test_a_fingerprint_is_8_hex_digits_and_differs_by_key_alone() -> None:
    assert ApiKey.parse("secret", "here").fingerprint() == ApiKey.parse("secret", "there").fingerprint()
    assert len(bytes.fromhex(key("a").fingerprint())) == 4
    assert key("a").fingerprint() != key("b").fingerprint()
