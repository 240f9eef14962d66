"""The states of a job: what may follow what, and what can never happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.jobs.lifecycle import FINAL, HOLDS_KEY, SOURCES, TARGETS, UNFINISHED, JobEvent, JobState

EVENTS = st.lists(st.sampled_from(JobEvent), max_size=30)


def next_state(state: JobState, event: JobEvent) -> JobState | None:
    """Returns the state after an event; None if the event cannot happen in this state."""
    return TARGETS[event] if state in SOURCES[event] else None


def states_after(events: list[JobEvent]) -> list[tuple[JobEvent, JobState]]:
    """Returns the events that happened, each with the state after it."""
    state, happened = JobState.QUEUED, []
    for event in events:
        following = next_state(state, event)
        if following is not None:
            state = following
            happened.append((event, state))
    return happened


@given(EVENTS)
def test_between_two_sendings_the_job_was_found_not_to_be_executed(events: list[JobEvent]) -> None:
    names = [event for event, _ in states_after(events) if event in (JobEvent.SEND, JobEvent.RETURN)]
    assert names == [JobEvent.SEND, JobEvent.RETURN] * (len(names) // 2) + [JobEvent.SEND] * (len(names) % 2)


@given(EVENTS)
def test_an_ended_job_never_changes(events: list[JobEvent]) -> None:
    assert all(state not in FINAL for _, state in states_after(events)[:-1])


@given(EVENTS)
def test_a_job_is_never_lost_in_doubt_unless_it_was_being_sent(events: list[JobEvent]) -> None:
    happened = states_after(events)
    if happened and happened[-1][1] is JobState.UNKNOWN:
        assert happened[-2] == (JobEvent.SEND, JobState.SENDING)


@pytest.mark.parametrize("state", FINAL)
@pytest.mark.parametrize("event", JobEvent)
def test_nothing_happens_to_an_ended_job(state: JobState, event: JobEvent) -> None:
    assert next_state(state, event) is None


def test_every_state_but_the_first_is_the_target_of_an_event() -> None:
    assert set(TARGETS.values()) == set(JobState)
    assert {*UNFINISHED, *FINAL} == set(JobState)


def test_a_dead_job_does_not_hold_its_key() -> None:
    assert set(FINAL) - set(HOLDS_KEY) == {JobState.FAILED, JobState.UNKNOWN, JobState.CANCELLED}
