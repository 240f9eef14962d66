"""The database of jobs: its tables, and the only statements that change a job's state.

Several processes may use it at the same time. Each change of a state is one conditional UPDATE, so of two processes
that try the same change, one succeeds. `owner` is the runner that holds a queued job's ticket, or sends the job.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nanonets_proxy.core.jobs.lifecycle import FINAL, HOLDS_KEY, SOURCES, TARGETS, UNFINISHED, JobEvent, JobState
from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.jobs.records import Content, JobView, KnownKey, NewJob, NoRoom, Result, Tally, Work
from nanonets_proxy.jobs.tables import (
    APPLICATION_ID,
    QUEUED_REASON,
    ROW_BYTES,
    SCHEMA,
    VERSION,
    VIEW,
    WORK,
    listed,
    statements,
    to_bytes,
    to_text,
    work_of,
)
from nanonets_proxy.telemetry.database_fault import DatabaseFault

_LOCK_TIMEOUT_S: Final = 5.0


class JobDatabase:
    """One connection. Every method raises sqlite3.Error, and `begin` also OSError if the file was removed."""

    def __init__(self, path: Path, upstream: str, *, read_only: bool = False) -> None:
        """Opens the file, or makes it. `upstream` names the upstream that its jobs are sent to.

        `read_only`: makes and changes nothing. Raises DatabaseFault if the file belongs to another program, version
        or upstream.
        """
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=_LOCK_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,  # opened at start, then one thread alone uses it
        )
        try:
            if not read_only:
                path.chmod(0o600)
                self._prepare(upstream)
            self._check_identity(upstream)
            self._path, self._status = path, path.stat()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, upstream: str) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        # A commit that has returned also survives a power cut (sqlite.org/pragma.html#pragma_synchronous).
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA journal_size_limit = {8 * 2**20}")
        execute("BEGIN IMMEDIATE")
        with self._connection:
            (tables,) = execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:
                for statement in statements(SCHEMA):
                    execute(statement)
                execute("INSERT INTO store VALUES (?)", (upstream,))

    def _check_identity(self, upstream: str) -> None:
        execute = self._connection.execute
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise DatabaseFault("is a database of another program")
        if version != VERSION:
            age = "a newer" if version > VERSION else "an older"
            raise DatabaseFault(f"was written by {age} version of nanonets-proxy")
        (owner,) = execute("SELECT upstream FROM store").fetchone()
        if owner != upstream:  # a job must never reach an upstream that its caller did not mean
            raise DatabaseFault(f"has the jobs for {owner}, and not for {upstream}: name another directory")

    def close(self) -> None:
        self._connection.close()

    # --- transactions: store_thread.py and writer.py control them ----------------------------------------

    def begin(self) -> None:
        if not os.path.samestat(self._path.stat(), self._status):  # removed: what is stored now would be lost
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._connection.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        self._connection.execute("BEGIN")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def with_key(self, caller: str, key: str) -> KnownKey | None:
        """Returns the job of a caller that holds an idempotency key; None if the key is free."""
        row = self._connection.execute(
            f"SELECT id, fingerprint FROM job WHERE caller = ? AND key = ? AND state IN {listed(HOLDS_KEY)}",  # noqa: S608  # constants
            (to_bytes(caller), key),
        ).fetchone()
        view = None if row is None else self.view(row[0])
        return None if view is None else KnownKey(view, row[1])

    def submit(self, job: NewJob, owner: str | None, max_unfinished: int) -> JobView | KnownKey:
        """Stores a job, unless its idempotency key belongs to an earlier one. Raises NoRoom."""
        work, lane = job.work, job.work.lane
        if job.key is not None and (known := self.with_key(lane.caller, job.key)) is not None:
            return known
        (unfinished,) = self._connection.execute(
            f"SELECT sum(jobs) FROM tally WHERE state IN {listed(UNFINISHED)}"  # noqa: S608  # constants
        ).fetchone()
        if unfinished >= max_unfinished:
            raise NoRoom
        values = {
            "id": work.id,
            "state": JobState.QUEUED,
            "owner": owner,
            "caller": to_bytes(lane.caller),
            "scope": to_bytes(lane.scope),
            "urgency": lane.urgency,
            "cost": work.cost,
            "pages": work.pages,
            "request_id": work.request_id,
            "key": job.key,
            "fingerprint": job.fingerprint,
            "method": work.method,
            "target": to_bytes(work.target),
            "host": work.host,
            "fields": work.fields,
            "created_s": work.created_s,
            "changed_s": work.created_s,
            "body_bytes": work.body_bytes,
            "bytes": ROW_BYTES + len(work.fields) + work.body_bytes,
            "body": job.body.data,
            "reason": QUEUED_REASON,
        }
        names = ", ".join(values)
        self._connection.execute(f"INSERT INTO job ({names}) VALUES (:{', :'.join(values)})", values)  # noqa: S608  # constants
        view = self.view(work.id)
        assert view is not None
        return view

    def view(self, job_id: str) -> JobView | None:
        """Returns what is known of a job; None if there is no such job."""
        row = self._connection.execute(f"SELECT {VIEW} FROM job WHERE id = ?", (job_id,)).fetchone()  # noqa: S608  # constants
        if row is None:
            return None
        scope, number = row[3], row[4]
        ahead = self._ahead(scope, number) if row[1] == JobState.QUEUED else 0.0
        own = (row[0], JobState(row[1]), to_text(row[2]), to_text(scope), number, row[5], to_text(row[6]))
        return JobView._make((*own, *row[7:], ahead))

    def _ahead(self, scope: bytes, number: int) -> float:
        """Returns the cost of the queued jobs before a number, as if all cost the same and none were missing."""
        first, last, jobs, cost = self._connection.execute(
            "SELECT (SELECT min(number) FROM job WHERE state = 'queued' AND scope = queue.scope), "
            "(SELECT max(number) FROM job WHERE state = 'queued' AND scope = queue.scope), jobs, cost "
            "FROM queue WHERE scope = ?",
            (scope,),
        ).fetchone()
        if last == first:
            return 0.0
        return float(cost * (jobs - 1) / jobs * (number - first) / (last - first))

    def result(self, job_id: str) -> Result | None:
        """Returns a job's response; None if it has none."""
        row = self._connection.execute(
            "SELECT status, head, response_bytes, response FROM job WHERE id = ? AND head IS NOT NULL", (job_id,)
        ).fetchone()
        return None if row is None else Result(row[0], row[1], Content(row[2], row[3]))

    def body(self, job_id: str) -> bytes | None:
        """Returns a request's body; None if it is in a file, or empty."""
        row = self._connection.execute("SELECT body FROM job WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else row[0]

    def change(
        self,
        job_id: str,
        event: JobEvent,
        *,
        owner: str | None = None,
        reason: str = "",
        result: Result | None = None,
    ) -> bool:
        """Changes a job's state. Returns False, and changes nothing, if the event cannot happen now.

        `owner`: the runner for which a job is sent. The owner of a job in SENDING alone can end the sending.
        """
        values: dict[str, Any] = {"state": TARGETS[event], "changed_s": time.time()}
        values["reason"] = QUEUED_REASON if event is JobEvent.RETURN else reason
        if event is not JobEvent.RETURN:
            values["owner"] = owner if event is JobEvent.SEND else None
        if TARGETS[event] in FINAL:
            values |= {"body": None, "body_bytes": 0, "bytes": ROW_BYTES}
        if result is not None:
            values |= {"status": result.status, "head": result.head, "response": result.body.data}
            values |= {"response_bytes": result.body.length}
            values["bytes"] = ROW_BYTES + len(result.head) + result.body.length
        changed = self._connection.execute(
            f"UPDATE job SET {', '.join(f'{name} = :{name}' for name in values)} "  # noqa: S608  # constants
            f"WHERE id = :id AND state IN {listed(SOURCES[event])} "
            "AND (state = 'queued' OR owner = :own)",
            values | {"id": job_id, "own": owner},
        )
        return changed.rowcount == 1

    def claim(self, owner: str, room: Callable[[JobLane, int], int]) -> tuple[list[Work], set[JobLane]]:
        """Gives queued jobs to a runner, of each lane as many as `room(lane, number of lanes)` says.

        Returns the jobs, and the lanes that have more.
        """
        execute = self._connection.execute
        lanes = execute(
            "SELECT caller, scope, urgency, count(*) FROM job WHERE state = 'queued' AND owner IS NULL "
            "GROUP BY scope, caller, urgency ORDER BY min(number)"
        ).fetchall()
        claimed: list[Work] = []
        left = set()
        for caller, scope, urgency, count in lanes:
            lane = JobLane(to_text(caller), to_text(scope), urgency)
            most = room(lane, len(lanes))
            if most < count:
                left.add(lane)
            if most:
                rows = execute(
                    f"SELECT {WORK} FROM job WHERE state = 'queued' AND owner IS NULL AND scope = ? "  # noqa: S608  # constants
                    "AND caller = ? AND urgency = ? ORDER BY number LIMIT ?",
                    (scope, caller, urgency, most),
                ).fetchall()
                execute(
                    f"UPDATE job SET owner = ? WHERE id IN ({', '.join('?' * len(rows))})",  # noqa: S608  # constants
                    (owner, *(row[0] for row in rows)),
                )
                claimed += map(work_of, rows)
        return claimed, left

    def owners(self) -> list[str]:
        """Returns the runners that have jobs."""
        return [
            owner for (owner,) in self._connection.execute("SELECT DISTINCT owner FROM job WHERE owner IS NOT NULL")
        ]

    def release(self, owner: str) -> int:
        """Takes back the queued jobs of a runner that stops or has ended. Returns how many."""
        return self._connection.execute(
            "UPDATE job SET owner = NULL WHERE owner = ? AND state = 'queued'", (owner,)
        ).rowcount

    def lose(self, owner: str, reason: str) -> list[str]:
        """Ends the jobs that a runner was sending when it ended: they are unknown. Returns their ids."""
        sending = self._connection.execute("SELECT id FROM job WHERE owner = ? AND state = 'sending'", (owner,))
        return [
            job_id
            for (job_id,) in sending.fetchall()
            if self.change(job_id, JobEvent.LOSE, owner=owner, reason=reason)
        ]

    def expire(self, first_s: float, last_s: float, most: int) -> list[str]:
        """Removes jobs that did not end between two instants, and returns their ids. `most`: how many at once."""
        ended = f"SELECT number FROM job WHERE state IN {listed(FINAL)} AND changed_s"  # noqa: S608  # OR would read all
        rows = self._connection.execute(
            f"DELETE FROM job WHERE number IN ({ended} < ? UNION ALL {ended} > ? LIMIT ?) RETURNING id",  # noqa: S608
            (first_s, last_s, most),
        )
        return [job_id for (job_id,) in rows.fetchall()]

    def without_job(self, ids: Iterable[str]) -> set[str]:
        """Returns the ids that belong to no job."""
        return {
            job_id
            for job_id in ids
            if self._connection.execute("SELECT 1 FROM job WHERE id = ?", (job_id,)).fetchone() is None
        }

    def tally(self) -> Tally:
        """Returns the numbers of all jobs."""
        rows = self._connection.execute("SELECT state, jobs, bytes FROM tally").fetchall()
        jobs: Mapping[JobState, int] = {JobState(state): count for state, count, _ in rows}
        tally = Tally(jobs, sum(size for _, _, size in rows))
        if not jobs[JobState.QUEUED]:
            return tally
        (oldest_s,) = self._connection.execute("SELECT min(created_s) FROM job WHERE state = 'queued'").fetchone()
        return replace(tally, oldest_s=oldest_s)
