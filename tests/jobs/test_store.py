"""The store under two processes that crash at any instant: no job is lost, and none is sent twice."""

import math
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from nanonets_proxy.core.jobs.lifecycle import FINAL, JobEvent, JobState
from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.records import INLINE_BYTES, Content, JobView, Result
from support.job_scene import new_job

RESULT = Result(200, b"HTTP/1.1 200 OK\r\n", Content(2, b"ok"))
RUNNERS = st.integers(0, 1)
KEYS = st.sampled_from([None, "a", "b"])


class Store(RuleBasedStateMachine):
    """Two runners share one file. Each may crash between any two transactions, or in the middle of one."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.db"
        self.databases = [JobDatabase(self.path, "upstream"), JobDatabase(self.path, "upstream")]
        self.lives = [0, 0]
        self.stored: dict[str, JobState] = {}
        self.sent: Counter[str] = Counter()
        self.numbers = 0
        self.held: list[set[str]] = [set(), set()]  # what each runner believes that it is sending

    def owner(self, runner: int) -> str:
        return f"{runner}-{self.lives[runner]}"

    def transact(self, runner: int) -> JobDatabase:
        self.databases[runner].begin()
        return self.databases[runner]

    @rule(target=jobs, runner=RUNNERS, key=KEYS, payload=st.sampled_from([b"1", b"2"]))
    def submit(self, runner: int, key: str | None, payload: bytes) -> object:
        self.numbers += 1
        job = new_job(self.numbers, key, payload)
        found = self.transact(runner).submit(job, None, 1000)
        self.databases[runner].commit()
        if isinstance(found, JobView):
            self.stored[found.id] = JobState.QUEUED
            return found.id
        assert key is not None
        assert self.stored[found.view.id] in (JobState.QUEUED, JobState.SENDING, JobState.DONE)
        assert (found.fingerprint == payload) == (found.view.id in self.payloads(payload))
        return multiple()

    def payloads(self, payload: bytes) -> set[str]:
        rows = self.databases[0]._connection.execute("SELECT id FROM job WHERE fingerprint = ?", (payload,))
        return {job_id for (job_id,) in rows}

    @rule(runner=RUNNERS, most=st.integers(0, 3))
    def claim(self, runner: int, most: int) -> None:
        claimed, _ = self.transact(runner).claim(self.owner(runner), lambda _lane, _lanes: most)
        self.databases[runner].commit()
        assert len(claimed) <= most
        assert all(self.stored[work.id] is JobState.QUEUED for work in claimed)
        numbers = [int(work.id.partition("-")[2]) for work in claimed]
        assert numbers == sorted(numbers)

    @rule(runner=RUNNERS, job=jobs, dies=st.booleans())
    def send(self, runner: int, job: str, dies: bool) -> None:
        """The upstream gets the request only after the commit; the runner may die before or after."""
        is_taken = self.transact(runner).change(job, JobEvent.SEND, owner=self.owner(runner))
        self.databases[runner].commit()
        assert is_taken == (self.stored[job] is JobState.QUEUED)
        if is_taken:
            self.stored[job] = JobState.SENDING
            self.held[runner].add(job)
            if not dies:
                self.sent[job] += 1

    @rule(runner=RUNNERS, job=jobs)
    def refuse(self, runner: int, job: str) -> None:
        self.end(runner, job, JobEvent.RETURN, None)
        if self.stored[job] is JobState.QUEUED:
            self.sent[job] = 0  # it was certainly not executed

    @rule(runner=RUNNERS, job=jobs, event=st.sampled_from([JobEvent.RESPOND, JobEvent.LOSE]))
    def finish(self, runner: int, job: str, event: JobEvent) -> None:
        if job in self.held[runner]:
            self.end(runner, job, event, RESULT if event is JobEvent.RESPOND else None)

    def end(self, runner: int, job: str, event: JobEvent, result: Result | None) -> None:
        was_held = job in self.held[runner]
        changed = self.transact(runner).change(job, event, owner=self.owner(runner), result=result)
        self.databases[runner].commit()
        assert changed == was_held
        if changed:
            self.held[runner].discard(job)
            view = self.databases[runner].view(job)
            assert view is not None
            self.stored[job] = view.state

    @rule(runner=RUNNERS, job=jobs)
    def cancel(self, runner: int, job: str) -> None:
        changed = self.transact(runner).change(job, JobEvent.CANCEL)
        self.databases[runner].commit()
        assert changed == (self.stored[job] is JobState.QUEUED)
        if changed:
            self.stored[job] = JobState.CANCELLED

    @rule(runner=RUNNERS, in_transaction=st.booleans())
    def crash(self, runner: int, in_transaction: bool) -> None:
        """A runner dies, with an uncommitted change at most. A new process finds its jobs."""
        dead = self.owner(runner)
        if in_transaction:
            self.transact(runner).claim(dead, lambda _lane, _lanes: 3)
        self.databases[runner]._connection.close()
        self.lives[runner] += 1
        self.databases[runner] = database = JobDatabase(self.path, "upstream")
        database.begin()
        database.release(dead)
        lost = database.lose(dead, "lost")
        database.commit()
        assert set(lost) == self.held[runner]
        for job in lost:
            self.stored[job] = JobState.UNKNOWN
        self.held[runner] = set()

    @rule()
    def expire(self) -> None:
        removed = self.transact(0).expire(time.time() + 10, math.inf, 1)
        self.databases[0].commit()
        for job in removed:
            assert self.stored[job] in FINAL
            self.stored.pop(job)
            self.stored[job] = JobState.DONE  # no event can happen to it any more

    @invariant()
    def no_job_is_lost_and_none_is_sent_twice(self) -> None:
        assert not [job for job, times in self.sent.items() if times > 1]
        rows = dict(self.databases[1]._connection.execute("SELECT id, state FROM job"))
        for job, state in self.stored.items():
            assert rows.get(job, state) == state
        assert {job for job, state in self.stored.items() if state not in FINAL} <= rows.keys()

    @invariant()
    def the_tally_counts_what_is_there(self) -> None:
        tally = self.databases[1].tally()
        counted = Counter(state for (state,) in self.databases[1]._connection.execute("SELECT state FROM job"))
        assert {state: count for state, count in tally.jobs.items() if count} == counted
        (size,) = self.databases[1]._connection.execute("SELECT coalesce(sum(bytes), 0) FROM job").fetchone()
        assert tally.bytes == size
        assert (tally.oldest_s is None) == (not counted["queued"])
        queue = self.databases[1]._connection.execute("SELECT scope, jobs, cost FROM queue").fetchall()
        assert queue == ([(b"account", counted["queued"], counted["queued"])] if counted["queued"] else [])
        for job, state in self.stored.items():
            view = self.databases[1].view(job)
            assert view is None or 0 <= view.ahead <= max(0, counted["queued"] - 1) or state is not JobState.QUEUED

    def teardown(self) -> None:
        for database in self.databases:
            database.close()
        self.folder.cleanup()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=12, stateful_step_count=40)


def test_a_job_that_is_sent_does_not_have_its_body_written_again(tmp_path: Path) -> None:
    def change(event: JobEvent) -> int:
        """Returns how many bytes the transaction has written."""
        before = log.stat().st_size
        database.begin()
        assert database.change("job-1", event, owner="owner")
        database.commit()
        return log.stat().st_size - before

    log = tmp_path / "jobs.db-wal"
    body = b"b" * INLINE_BYTES
    with closing(JobDatabase(tmp_path / "jobs.db", "upstream")) as database:
        database.begin()
        database.submit(new_job(1, None, body), "owner", 1)
        database.commit()
        written = [change(event) for event in (JobEvent.SEND, JobEvent.RETURN, JobEvent.SEND)]
        assert max(written) < len(body)
        assert database.body("job-1") == body
        view = database.view("job-1")
    assert view is not None
    assert view.reason == ""
    database.close()


def test_a_look_for_old_jobs_does_not_read_those_that_are_kept(tmp_path: Path) -> None:
    def steps_of_look() -> int:
        """Returns how many steps SQLite's virtual machine takes."""
        steps = Counter[str]()
        database._connection.set_progress_handler(lambda: steps.update(["step"]), 1)
        removed = database.expire(time.time() - 60, time.time() + 60, 10)
        database._connection.set_progress_handler(None, 1)
        assert not removed
        return steps.total()

    with closing(JobDatabase(tmp_path / "jobs.db", "upstream")) as database:
        database.begin()
        steps = []
        for number in range(200):
            database.submit(new_job(number, None, b""), "owner", 1000)
            database.change(f"job-{number}", JobEvent.CANCEL)
            steps.append(steps_of_look())
        assert steps[-1] == steps[0]
        for first_s, last_s in ((math.inf, math.inf), (-math.inf, -math.inf), (math.inf, -math.inf)):
            assert len(database.expire(first_s, last_s, 10)) == 10
        database.commit()
