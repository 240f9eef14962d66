"""Groups of identical GETs: who may join, which writes close a group, and that each follower gets one ending."""

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nanonets_proxy.core.coalescing.groups import Group, Groups, GroupState

DOCUMENT = "/api/v4/workflows/7/documents/8"


@dataclass(eq=False)
class Waiting:
    lane: str = "a"


def end_leader() -> None:
    """Stands for the function that ends a leader."""


def sent_group(groups: Groups[Waiting], target: str = DOCUMENT) -> Group[Waiting]:
    group = groups.lead("key", "a", target)
    groups.note_sending(group)
    return group


def test_a_get_of_the_same_lane_joins_a_leader_that_waits() -> None:
    groups = Groups[Waiting]()
    group = groups.lead("key", "a", DOCUMENT)
    assert groups.find("key", "a") is group
    assert groups.find("key", "b") is None, "its own lane may be shorter"
    assert groups.find("other", "a") is None


def test_a_get_of_every_lane_joins_a_leader_that_was_sent() -> None:
    groups = Groups[Waiting]()
    group = sent_group(groups)
    assert groups.find("key", "b") is group


def test_the_leader_that_was_sent_last_is_joined() -> None:
    groups = Groups[Waiting]()
    first, second = groups.lead("key", "a", DOCUMENT), groups.lead("key", "b", DOCUMENT)
    groups.note_sending(first)
    groups.note_sending(second)
    assert groups.find("key", "c") is second
    assert first.state is GroupState.CLOSED


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", DOCUMENT),
        ("PATCH", DOCUMENT + "/"),
        ("POST", DOCUMENT + "/verify?all=1"),
        ("PUT", "/API/v4/Workflows/7/documents/%38"),
        ("DELETE", "/api/v4/workflows/7"),
        ("PURGE", "/api/v4/workflows/7/documents"),
        ("POST", "/api/v4//anything"),
        ("POST", "/api/v4/workflows/7/../7/documents/8"),
    ],
)
def test_a_write_that_may_change_the_response_closes_a_sent_group(method: str, target: str) -> None:
    groups = Groups[Waiting]()
    group = sent_group(groups)
    groups.note_write(method, target)
    assert group.state is GroupState.CLOSED
    assert groups.find("key", "a") is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/v4/workflows/7/documents"),
        ("DELETE", "/api/v4/workflows/7/documents/9"),
        ("PATCH", "/api/v4/workflows/7/settings"),
    ],
)
def test_a_write_to_something_else_closes_no_group(method: str, target: str) -> None:
    groups = Groups[Waiting]()
    group = sent_group(groups)
    groups.note_write(method, target)
    assert groups.find("key", "a") is group


def test_a_path_that_servers_could_read_differently_closes_with_every_write() -> None:
    groups = Groups[Waiting]()
    group = sent_group(groups, "/api/v4/workflows/7/documents/%2F")
    groups.note_write("POST", "/elsewhere")
    assert group.state is GroupState.CLOSED


def test_a_write_does_not_close_a_leader_that_waits() -> None:
    groups = Groups[Waiting]()
    group = groups.lead("key", "a", DOCUMENT)
    groups.note_write("DELETE", DOCUMENT)
    assert groups.find("key", "a") is group


def test_all_followers_get_the_end_of_a_group() -> None:
    groups = Groups[Waiting]()
    group, followers = sent_group(groups), [Waiting(), Waiting()]
    for follower in followers:
        groups.follow(group, follower)
    assert groups.end(group) == followers
    assert groups.end(group) == []
    assert groups.find("key", "a") is None
    groups.close(group)
    assert group.state is GroupState.ENDED


def test_the_first_follower_leads_next_in_its_own_lane() -> None:
    groups = Groups[Waiting]()
    group, first, second = sent_group(groups), Waiting("b"), Waiting("c")
    groups.follow(group, first)
    groups.follow(group, second)
    assert groups.pass_on(group) is first
    assert (group.state, list(group.followers)) == (GroupState.WAITING, [second])
    assert groups.find("key", "b") is group
    assert groups.find("key", "c") is None


def test_a_group_without_followers_ends_with_its_leader() -> None:
    groups = Groups[Waiting]()
    group = sent_group(groups)
    assert groups.pass_on(group) is None
    assert group.state is GroupState.ENDED
    assert groups.find("key", "a") is None


def test_a_closed_group_that_gets_a_new_leader_does_not_replace_its_successor() -> None:
    groups = Groups[Waiting]()
    closed, follower = sent_group(groups), Waiting()
    groups.follow(closed, follower)
    groups.note_write("DELETE", DOCUMENT)
    successor = groups.lead("key", "a", DOCUMENT)
    assert groups.pass_on(closed) is follower
    assert groups.find("key", "a") is successor
    groups.note_sending(closed)
    assert groups.find("key", "a") is closed, "its response comes sooner"
    groups.end(closed)
    assert groups.find("key", "a") is successor


def test_a_leader_without_its_caller_goes_on_until_the_last_follower_leaves() -> None:
    groups = Groups[Waiting]()
    group, follower, other = sent_group(groups), Waiting(), Waiting()
    assert not groups.lose_caller(group, end_leader), "nobody else wants the response"
    groups.follow(group, follower)
    groups.follow(group, other)
    assert groups.lose_caller(group, end_leader)
    assert groups.leave(group, follower) is None
    assert groups.leave(group, other) is end_leader


@pytest.mark.parametrize("is_passed_on", [True, False])
def test_a_leader_that_has_ended_is_not_ended_again(is_passed_on: bool) -> None:
    groups = Groups[Waiting]()
    group, first, second = sent_group(groups), Waiting(), Waiting()
    groups.follow(group, first)
    groups.follow(group, second)
    groups.lose_caller(group, end_leader)
    if is_passed_on:
        groups.pass_on(group)
    else:
        groups.end(group)
    assert groups.leave(group, second) is None


def test_a_leader_with_its_caller_goes_on_without_followers() -> None:
    groups = Groups[Waiting]()
    group, follower = sent_group(groups), Waiting()
    groups.follow(group, follower)
    assert groups.leave(group, follower) is None


@dataclass(eq=False)
class Get:
    """A GET of the model: `writes_ended` counts the writes that had ended when it began."""

    lane: str
    writes_ended: int
    endings: list[str] = field(default_factory=list)


class Coalescing(RuleBasedStateMachine):
    """GETs of one document and writes to it, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = Groups[Get]()
        self.led: dict[Group[Get], Get] = {}
        self.sent_after: dict[Group[Get], int] = {}
        self.gets: list[Get] = []
        self.writes = 0
        self.ended = 0

    @rule(lane=st.sampled_from("abc"))
    def begin_get(self, lane: str) -> None:
        get = Get(lane, self.ended)
        self.gets.append(get)
        group = self.groups.find("key", lane)
        if group is None:
            self.led[self.groups.lead("key", lane, DOCUMENT)] = get
            return
        if group in self.sent_after:
            assert self.sent_after[group] >= get.writes_ended, "the leader was sent before a write that has ended"
        else:
            assert self.led[group].lane == lane
        self.groups.follow(group, get)

    @precondition(lambda self: self.led)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(list(self.led)))
        self.groups.note_sending(group)
        self.sent_after[group] = self.ended  # a refused request is sent again: only its last sending counts

    @rule()
    def begin_write(self) -> None:
        self.writes += 1
        self.groups.note_write("PATCH", DOCUMENT)

    @precondition(lambda self: self.writes > self.ended)
    @rule()
    def end_write(self) -> None:
        self.ended += 1
        self.groups.note_write("PATCH", DOCUMENT)

    @precondition(lambda self: self.sent_after)
    @rule(data=st.data())
    def respond(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(list(self.sent_after)))
        self.groups.close(group)
        for follower in [self.led.pop(group), *self.groups.end(group)]:
            assert self.sent_after[group] >= follower.writes_ended
            follower.endings.append("response")
        del self.sent_after[group]

    @precondition(lambda self: self.led)
    @rule(data=st.data())
    def lose_leader(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(list(self.led)))
        self.led.pop(group).endings.append("own")
        self.sent_after.pop(group, None)
        if (leader := self.groups.pass_on(group)) is not None:
            self.led[group] = leader

    @precondition(lambda self: any(group.followers for group in self.led))
    @rule(data=st.data())
    def lose_follower(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from([group for group in self.led if group.followers]))
        follower = data.draw(st.sampled_from(list(group.followers)))
        self.groups.leave(group, follower)
        follower.endings.append("own")

    @invariant()
    def each_get_is_led_follows_or_has_ended_once(self) -> None:
        open_gets = [*self.led.values(), *(get for group in self.led for get in group.followers)]
        assert len(open_gets) == len(set(map(id, open_gets)))
        for get in self.gets:
            assert len(get.endings) == (0 if any(get is other for other in open_gets) else 1)

    @invariant()
    def no_ended_group_can_be_joined(self) -> None:
        for lane in "abc":
            group = self.groups.find("key", lane)
            assert group is None or group in self.led


TestCoalescing = Coalescing.TestCase
