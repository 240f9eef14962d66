"""The tables of jobs, and how rows become values.

job    one row for each job, with its bodies if they are small
tally  how many jobs are in each state, and their disk space
queue  the cost of the queued jobs of each scope
store  one row: the upstream that the jobs are for

Triggers keep `tally` and `queue`, so that no operation counts jobs.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from nanonets_proxy.core.jobs.lifecycle import FINAL, HOLDS_KEY, JobState
from nanonets_proxy.core.jobs.window import JobLane
from nanonets_proxy.jobs.records import Work

VERSION: Final = 2
APPLICATION_ID: Final = 0x6E6E6A31  # "nnj1"
QUEUED_REASON: Final = " "
"""A queued job has no reason. With this text, its row is as long as in SENDING, whose name is longer by one letter.

So SQLite overwrites the row in place, and does not write the body again.
"""
ROW_BYTES: Final = 2048  # a job without bodies, with its entries in the indexes


def listed(states: Iterable[JobState]) -> str:
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"


SCHEMA: Final = f"""
    CREATE TABLE job (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, owner TEXT,
        caller BLOB NOT NULL, scope BLOB NOT NULL, urgency INTEGER NOT NULL, cost REAL NOT NULL, pages INTEGER,
        request_id TEXT NOT NULL, key TEXT, fingerprint BLOB NOT NULL,
        method TEXT NOT NULL, target BLOB NOT NULL, host BLOB NOT NULL, fields BLOB NOT NULL,
        created_s REAL NOT NULL, changed_s REAL NOT NULL, reason TEXT NOT NULL DEFAULT '',
        status INTEGER, head BLOB, bytes INTEGER NOT NULL, body_bytes INTEGER NOT NULL,
        response_bytes INTEGER NOT NULL DEFAULT 0, response BLOB, body BLOB
    );
    CREATE INDEX job_queue ON job (owner, scope, caller, urgency, number) WHERE state = 'queued';
    CREATE INDEX job_ahead ON job (scope, number) WHERE state = 'queued';
    CREATE INDEX job_age ON job (created_s) WHERE state = 'queued';
    CREATE INDEX job_owner ON job (owner) WHERE owner IS NOT NULL;
    CREATE UNIQUE INDEX job_key ON job (caller, key) WHERE key IS NOT NULL AND state IN {listed(HOLDS_KEY)};
    CREATE INDEX job_end ON job (changed_s) WHERE state IN {listed(FINAL)};
    CREATE TABLE tally (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
        UPDATE tally SET jobs = jobs + 1, bytes = bytes + new.bytes WHERE state = new.state;
    END;
    CREATE TRIGGER job_changed AFTER UPDATE OF state, bytes ON job BEGIN
        UPDATE tally SET jobs = jobs - 1, bytes = bytes - old.bytes WHERE state = old.state;
        UPDATE tally SET jobs = jobs + 1, bytes = bytes + new.bytes WHERE state = new.state;
    END;
    CREATE TRIGGER job_removed AFTER DELETE ON job BEGIN
        UPDATE tally SET jobs = jobs - 1, bytes = bytes - old.bytes WHERE state = old.state;
    END;
    CREATE TABLE queue (scope BLOB PRIMARY KEY, jobs INTEGER NOT NULL, cost REAL NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER job_enqueued AFTER INSERT ON job BEGIN
        INSERT INTO queue VALUES (new.scope, 1, new.cost)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1, cost = cost + excluded.cost;
    END;
    CREATE TRIGGER job_returned AFTER UPDATE OF state ON job WHEN new.state = 'queued' BEGIN
        INSERT INTO queue VALUES (new.scope, 1, new.cost)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1, cost = cost + excluded.cost;
    END;
    CREATE TRIGGER job_dequeued AFTER UPDATE OF state ON job WHEN old.state = 'queued' BEGIN
        UPDATE queue SET jobs = jobs - 1, cost = cost - old.cost WHERE scope = old.scope;
        DELETE FROM queue WHERE scope = old.scope AND jobs = 0;
    END;
    INSERT INTO tally VALUES {", ".join(f"('{state}', 0, 0)" for state in JobState)};
    CREATE TABLE store (upstream TEXT NOT NULL);
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {VERSION};
"""  # noqa: S608  # constants
WORK: Final = (
    "id, caller, scope, urgency, cost, pages, request_id, method, target, host, fields, body_bytes, created_s"
)
VIEW: Final = "id, state, caller, scope, number, method, target, created_s, changed_s, status, trim(reason)"


def work_of(row: tuple[Any, ...]) -> Work:
    job_id, caller, scope, urgency, cost, pages, request_id, method, target, *rest = row
    lane = JobLane(to_text(caller), to_text(scope), urgency)
    return Work(job_id, lane, cost, pages, request_id, method, to_text(target), *rest)


def statements(script: str) -> Iterable[str]:
    """Yields the statements of a script. A trigger is one statement, with those inside it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


# Names and targets may hold bytes that are no UTF-8.
def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
