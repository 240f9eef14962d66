"""The ledger's file: faults and their end, retention, and two processes at once."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanonets_proxy.core.usage.rollups import Counts
from nanonets_proxy.telemetry.database_fault import DatabaseFault, fault_of
from nanonets_proxy.telemetry.ledger import ledger as ledger_module
from nanonets_proxy.telemetry.ledger import writer as writer_module
from nanonets_proxy.telemetry.ledger.batch import Batch
from nanonets_proxy.telemetry.ledger.database import LedgerDatabase
from nanonets_proxy.telemetry.ledger.file import put_aside
from nanonets_proxy.telemetry.ledger.ledger import Attempt, Ledger, Reports
from nanonets_proxy.telemetry.ledger.policy import LedgerPolicy
from nanonets_proxy.telemetry.ledger.reader import open_fault, open_ledger
from nanonets_proxy.telemetry.ledger.writer import LedgerWriter
from support.eventually import until
from support.telemetry.usage_ledger import ignore, record, rows, send

HOUR = 400_000
NOW_S = 1_790_000_000


def batch(count: int, *, first: int = 1, hour: int = HOUR, caller: str = "billing") -> Batch:
    series = ("", caller, "GET", "/other", "2xx")
    return Batch(
        {series: [value for number in range(first, first + count) for value in (hour * 3600, number, 1, 0, 0, 0)]}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def database(path: Path) -> Iterator[LedgerDatabase]:
    database = LedgerDatabase(path, 400, 10_000_000)
    yield database
    database.close()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def make_folder(path: Path) -> None:
    path.mkdir()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove_folder(path: Path) -> None:
    path.rmdir()


def read(path: Path) -> bytes:
    return path.read_bytes()


class Running:
    """A ledger with its thread. `stopped`, `resumed` and `damaged` are what it reported."""

    def __init__(self, path: Path) -> None:
        self.stopped: list[str] = []
        self.cures: list[str] = []
        self.damaged: list[tuple[Path, str]] = []
        self.resumed: list[int] = []
        policy = LedgerPolicy(path, 400, 10_000_000)
        self.ledger = Ledger(
            lambda reports: self._note(LedgerWriter(policy, reports)),
            self._on_stop,
            self.resumed.append,
            lambda aside, reason: self.damaged.append((aside, reason)),
        )

    def _on_stop(self, fault: str, cure: str) -> None:
        self.stopped.append(fault)
        self.cures.append(cure)

    def _note(self, writer: LedgerWriter) -> LedgerWriter:
        self.writer = writer
        return writer

    def record(self, count: int = 1) -> None:
        for _ in range(count):
            send(self.ledger)


# --- faults ------------------------------------------------------------------------------------


def test_a_full_disk_is_named_and_the_batch_can_be_written_later(database: LedgerDatabase, path: Path) -> None:
    limit = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count = {limit}")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.write(batch(20_000))
    assert str(fault_of(caught.value)) == "cannot be written: the disk is full"
    assert rows(path) == []
    database._connection.execute("PRAGMA max_page_count = 1000000")
    database.write(batch(20_000))
    with open_ledger(path) as reader:
        assert reader.by(["caller"], 0, HOUR + 1) == [(("billing",), Counts(20_000, 20_000))]


@pytest.mark.parametrize("start", [b"SQLite format 3\0", bytes(16)])
async def test_a_damaged_file_is_put_aside_and_the_batch_is_in_the_new_one(start: bytes, path: Path) -> None:
    write(path, start + b"no database" * 1000)
    running = Running(path)
    running.record()
    running.ledger.close()
    await until(lambda: bool(running.damaged))
    assert running.damaged == [(Path(f"{path}.bad"), "is damaged, or no database")]
    assert len(rows(path)) == 1
    assert read(Path(f"{path}.bad")) == start + b"no database" * 1000
    assert running.stopped == []


def test_a_disk_that_damages_every_new_file_does_not_cost_the_first_one(path: Path) -> None:
    for number in range(12):
        write(path, b"%d" % number)
        put_aside(path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        f"{path.name}.bad": b"0",
        **{f"{path.name}.bad{number}": b"%d" % (number - 1) for number in range(2, 9)},
        f"{path.name}.bad9": b"11",
    }


def test_an_aside_has_no_companions_of_the_one_that_it_replaces(path: Path) -> None:
    wal = path.with_name(f"{path.name}-wal")
    for number in range(10):
        write(path, b"%d" % number)
        if number == 8:
            write(wal, b"old")
        put_aside(path)
    assert read(path.with_name(f"{path.name}.bad9")) == b"9"
    assert not path.with_name(f"{path.name}.bad9-wal").exists()


def test_of_two_processes_that_put_a_file_aside_none_takes_the_name_of_the_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, b"first")
    put_aside(path)
    write(path, b"second")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as before the other process has taken it
    put_aside(path)
    assert read(path.with_name(f"{path.name}.bad")) == b"first"


async def test_a_damaged_file_that_cannot_be_renamed_is_named_and_keeps_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fail(source: Path, target: Path) -> Path:
        if source == path:  # as that of a mount
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return replace(source, target)

    write(path, b"SQLite format 3\0" + b"no database" * 1000)
    before = folder_of(path)
    monkeypatch.setattr(Path, "replace", fail)
    running = Running(path)
    await until(lambda: bool(running.stopped))
    running.ledger.close()
    assert running.stopped == ["is damaged, or no database, and cannot be renamed: device or resource busy"]
    assert running.cures == ["move the file away"]
    assert folder_of(path) == before
    write(path.with_name(f"{path.name}-wal"), b"log")
    before = folder_of(path)
    with pytest.raises(OSError, match="busy"):
        put_aside(path)
    assert folder_of(path) == before


async def test_a_file_that_another_process_has_put_aside_is_not_put_aside_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: LedgerDatabase, __: Batch) -> None:
        monkeypatch.undo()
        put_aside(path)
        write(path, b"")
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(LedgerDatabase, "write", fail)
    running = Running(path)
    running.record()
    await until(lambda: running.ledger.status().pending == 0)
    running.ledger.close()
    assert (running.damaged, running.stopped) == ([], [])
    assert not path.with_name(f"{path.name}.bad2").exists()
    assert len(rows(path)) == 1


def write_text(path: Path) -> None:
    write(path, b'listen = ["localhost:8080"]\n')


def write_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def folder_of(path: Path) -> dict[str, tuple[int, bytes]]:
    """Returns the mode and the content of each file in the folder of `path`."""
    return {file.name: (file.stat().st_mode, file.read_bytes()) for file in path.parent.iterdir()}


@pytest.mark.parametrize(
    ("make", "fault"),
    [(write_text, "is a file of another program"), (write_database, "is a database of another program")],
)
async def test_a_file_of_another_program_is_left_alone(
    make: Callable[[Path], None], fault: str, path: Path
) -> None:
    make(path)
    before = folder_of(path)
    running = Running(path)
    running.record()
    await until(lambda: bool(running.stopped))
    running.ledger.close()
    assert running.stopped == [fault]
    assert running.cures == ["name another file, or move this one away"]
    assert folder_of(path) == before


async def test_a_removed_file_is_made_again(path: Path) -> None:
    running = Running(path)
    running.record()
    await until(lambda: running.ledger.status().pending == 0)
    for file in path.parent.iterdir():
        file.unlink()
    running.record()
    running.ledger.close()
    assert len(rows(path)) == 1


@pytest.mark.parametrize("open_it", [open_fault, lambda path: next(_reading(path))])
def test_a_file_of_a_newer_version_is_named_and_left_alone(path: Path, open_it: Callable[[Path], str]) -> None:
    record(path, lambda _: None)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    assert "was written by a newer version of nanonets-proxy (schema 99, not 1)" in open_it(path)
    with pytest.raises(DatabaseFault, match="newer version"):
        LedgerDatabase(path, 400, 1)
    assert path.read_bytes() == before


def _reading(path: Path) -> Iterator[str]:
    try:
        with open_ledger(path) as ledger:
            ledger.by(["caller"], 0, 1)
    except DatabaseFault as fault:
        yield str(fault)


def test_a_locked_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanonets_proxy.telemetry.ledger.database._LOCK_TIMEOUT_S", 0.01)
    record(path, lambda _: None)
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as caught:
        LedgerDatabase(path, 400, 1)
    assert str(fault_of(caught.value)) == "is locked by another process"
    other.close()


def test_a_database_of_another_program_is_no_ledger(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    assert open_fault(path) == "is a database of another program"
    with pytest.raises(DatabaseFault, match="is a database of another program"):
        LedgerDatabase(path, 400, 1)
    assert path.read_bytes() == before


def test_the_check_finds_no_fault_with_a_good_or_missing_file_and_makes_none(path: Path) -> None:
    assert open_fault(path) is None
    assert not list(path.parent.iterdir())
    record(path, lambda _: None)
    files = folder_of(path)
    assert open_fault(path) is None
    with open_ledger(path) as reader:
        reader.by(["caller"], 0, 1)
    assert folder_of(path) == files
    assert open_fault(path.parent / "no" / "usage.db") == "cannot be used: no such file or directory"
    assert open_fault(path.parent) == "cannot be used: is a directory"


def test_reading_names_a_missing_file(path: Path) -> None:
    assert next(_reading(path)) == f"{path} does not exist: no attempt has been recorded there"
    long = path.with_name("u" * 300)
    assert next(_reading(long)) == f"{long} cannot be used: file name too long"
    path.touch()
    assert next(_reading(path)) == f"{path} is empty: no attempt has been recorded there"


@pytest.mark.parametrize("fault", [None, sqlite3.DatabaseError("database disk image is malformed")])
def test_a_ledger_that_a_proxy_changes_while_it_is_read_without_locks_is_a_fault(
    path: Path, fault: Exception | None
) -> None:
    def read_meanwhile() -> None:
        with open_ledger(path):
            record(path, send)
            if fault is not None:
                raise fault

    record(path, lambda _: None)
    with pytest.raises(DatabaseFault) as caught:
        read_meanwhile()
    assert str(caught.value) == f"{path} was changed while it was read: try again"


def test_a_ledger_that_a_proxy_has_open_can_be_read_while_it_is_changed(
    database: LedgerDatabase, path: Path
) -> None:
    with open_ledger(path) as reader:
        database.write(batch(1))
        database._connection.execute("PRAGMA wal_checkpoint")
        assert reader.by(["caller"], 0, HOUR + 1) == [(("billing",), Counts(1, 1))]


async def test_while_nothing_can_be_written_further_attempts_are_lost_and_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING", 10)
    make_folder(path)
    running = Running(path)
    await until(lambda: bool(running.stopped))
    running.record(25)
    await until(lambda: running.ledger.status().lost == 15)
    assert len(running.stopped) == 1
    remove_folder(path)
    await until(lambda: running.ledger.status().fault is None)
    assert running.resumed == [15]
    assert running.ledger.status().pending == 0
    running.record()
    assert running.ledger.close() == 0, "ledger_resumed has counted them"
    assert len(rows(path)) == 11
    assert len(running.stopped) == 1


async def test_a_ledger_that_cannot_write_at_its_end_counts_what_it_loses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING", 10)
    running = Running(path)
    running.record(3)
    running.ledger._hand_over()
    await until(lambda: not running.ledger.status().pending)
    replace_by_folder(path)
    running.record(8)
    running.ledger._hand_over()
    await until(lambda: bool(running.stopped))
    running.record(6)
    Attempt(running.ledger, ("", "a", "GET", "/other")).begin()
    assert running.ledger.status().lost == 4
    assert running.ledger.close() == 8 + 6 + 1


async def test_attempts_that_the_end_counts_as_lost_are_not_in_a_later_event(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING", 10)
    make_folder(path)
    running = Running(path)
    running.record(25)
    await until(lambda: running.ledger.status().lost == 15 and bool(running.stopped))
    remove_folder(path)
    assert running.ledger.close() == 15, "the last write succeeds"
    await until(lambda: bool(running.resumed))
    assert running.resumed == [0]


async def test_a_fault_of_the_last_write_is_known_at_the_end(path: Path) -> None:
    running = Running(path)
    running.record()
    running.ledger._hand_over()
    await until(lambda: not running.ledger.status().pending)
    replace_by_folder(path)
    running.record(2)
    assert running.ledger.close() == 2
    assert running.ledger.status().fault == "cannot be used: is a directory"


async def test_another_fault_replaces_the_first_one_and_lost_attempts_do_not() -> None:
    stopped: list[str] = []
    ledger = Ledger(Collected, lambda fault, _: stopped.append(fault), ignore, ignore)
    ledger._writer.reports.fault("is locked by another process", "wait")  # type: ignore[attr-defined]  # a Collected
    ledger._writer.reports.fault("cannot be written: the disk is full", "make room")  # type: ignore[attr-defined]
    ledger._writer.reports.fault("cannot be written: the disk is full", "make room")  # type: ignore[attr-defined]
    await until(lambda: len(stopped) == 2)
    ledger.number_limit = 0
    send(ledger)
    assert ledger.status().lost == 1
    assert stopped == ["is locked by another process", "cannot be written: the disk is full"]
    assert ledger.status().fault == stopped[1]


async def test_a_fault_after_a_batch_was_written_does_not_count_the_batch_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_database: LedgerDatabase, _added: int) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(writer_module, "_MAINTENANCE_INTERVAL_S", 0.0)
    running = Running(path)
    with monkeypatch.context() as patch:
        patch.setattr(LedgerDatabase, "delete_old", fail)
        running.record()
        await until(lambda: bool(running.stopped))
    running.record()
    running.ledger.close()
    with open_ledger(path) as reader:
        assert reader.by(["caller"], 0, 2**40) == [(("billing",), Counts(2, 2))]


# --- batches -----------------------------------------------------------------------------------


class Collected:
    """Takes batches, and never writes them."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports
        self.batches: list[Batch] = []

    def put(self, batch: Batch) -> None:
        self.batches.append(batch)

    def close(self) -> tuple[int, str | None]:
        return 0, None


class ManualLoop:
    """Has a clock that the test sets, and the timers that were asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        self.timers.append((self.now_s + delay_s, callback))
        return object()

    def run_next(self) -> float:
        self.now_s, callback = self.timers.pop(0)
        callback()
        return self.now_s


@pytest.mark.usefixtures("one_day")
async def test_the_usage_of_today_is_reported_also_when_nothing_is_sent_any_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_MAINTENANCE_INTERVAL_S", 0.5)
    ledger = Ledger(
        lambda reports: LedgerWriter(LedgerPolicy(path, 400, 10_000_000), reports), ignore, ignore, ignore
    )
    for _ in range(2):  # the second batch comes before another report is due
        send(ledger)
        ledger._hand_over()
        await until(lambda: not ledger.status().pending)
    await until(lambda: list(ledger.usage_today("")) == [("billing", 2, 0)])
    tomorrow_s = time.time() + 86_400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: tomorrow_s)
        assert list(ledger.usage_today("")) == [], "the next day begins with nothing"
    ledger.close()


async def test_attempts_are_handed_over_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, loop = Ledger(Collected, ignore, ignore, ignore), ManualLoop()
    monkeypatch.setattr(time, "time", lambda: NOW_S + loop.now_s)
    ledger._loop = loop  # type: ignore[assignment]  # has the methods that the ledger calls
    send(ledger)
    loop.now_s = 0.25
    running = Attempt(ledger, ("", "a", "GET", "/other"))
    running.begin()
    assert len(loop.timers) == 1
    assert loop.run_next() == 0.5
    assert statuses(ledger) == [["2xx"]], "a young attempt may end soon"
    assert loop.run_next() == 1.0
    assert statuses(ledger) == [["2xx"], ["unfinished"]]
    assert loop.timers == [], "a recorded attempt needs no timer"
    running.end_with(500, 0, 0, 0)
    loop.run_next()
    assert statuses(ledger) == [["2xx"], ["unfinished"], ["5xx"]]
    assert loop.timers == [], "an idle ledger has no timer"


def statuses(ledger: Ledger) -> list[list[str]]:
    assert isinstance(ledger._writer, Collected)
    return [[series[4] for series in (*entry.rows, *entry.running)] for entry in ledger._writer.batches]


def test_two_connections_may_write_at_the_same_time(path: Path) -> None:
    first, second = LedgerDatabase(path, 400, 100), LedgerDatabase(path, 400, 100)
    for database in (first, second, first):
        database.write(batch(3, first=1 if database is second else len(rows(path)) + 1))
    first.close()
    second.close()
    with open_ledger(path) as reader:
        assert reader.by(["caller"], 0, HOUR + 1) == [(("billing",), Counts(9, 9))]
    assert len(rows(path)) == 9


def test_many_attempts_of_many_series_are_packed_and_each_is_a_row_of_the_view(
    database: LedgerDatabase, path: Path
) -> None:
    statuses = ("2xx", "429", "5xx")
    sent = {
        (HOUR * 3600 + number, number, statuses[number % 3], number % 2, 10 * number, 2**40 + number, 3)
        for number in range(1, 1201)
    }
    written = Batch()
    for at_s, number, status, *values in sorted(sent):
        series = ("", "billing", "GET", "/other", status)
        written.rows.setdefault(series, []).extend((at_s, number, *values))
    database.write(written)
    assert written.row_count == 1200
    names = ("at_s", "number", "status", "requests", "request_bytes", "response_bytes", "pages")
    found = [tuple(row[name] for name in names) for row in rows(path)]
    assert len(found) == 1200
    assert set(found) == sent
    with contextlib.closing(sqlite3.connect(path)) as connection:
        counts = [count for (count,) in connection.execute("SELECT attempts FROM packed")]
    assert sorted(counts) == [200, 500, 500]
    with open_ledger(path) as reader:
        (((caller,), total),) = reader.by(["caller"], 0, HOUR + 1)
    assert (caller, total.attempts, total.pages) == ("billing", 1200, 3600)


def test_an_attempt_that_has_ended_is_no_running_one_any_more(database: LedgerDatabase, path: Path) -> None:
    at_s = HOUR * 3600
    unfinished, served = ("", "billing", "GET", "/other", "unfinished"), ("", "billing", "GET", "/other", "2xx")
    database.write(Batch(running={unfinished: [at_s, 1, 1, 0, 0, 0, at_s, 2, 1, 0, 0, 0]}))
    assert [row["status"] for row in rows(path)] == ["unfinished"] * 2
    database.write(
        Batch(
            {served: [at_s, 1, 1, 5, 7, 0]},
            ended=[(at_s, 1)],
            corrections={(unfinished, HOUR): [-1, -1, 0, 0, 0]},
        )
    )
    assert sorted((row["number"], row["status"]) for row in rows(path)) == [(1, "2xx"), (2, "unfinished")]
    with open_ledger(path) as reader:
        assert dict(reader.by(["status"], 0, HOUR + 1)) == {
            ("2xx",): Counts(1, 1, 5, 7),
            ("unfinished",): Counts(1, 1),
        }


def test_a_file_of_an_earlier_version_keeps_its_rows_and_gets_the_new_tables(path: Path) -> None:
    database = LedgerDatabase(path, 400, 30)
    earlier = batch(5)
    database.write(Batch(running=earlier.rows))  # earlier versions had every attempt in this table
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP VIEW every_attempt")
        connection.execute("DROP TABLE packed")
    database.close()
    database = LedgerDatabase(path, 400, 30)
    database.write(batch(10, first=6, hour=HOUR + 1))
    assert len(rows(path)) == 15
    database.delete_before((HOUR + 1) * 3600, 3)
    assert sorted(row["at_s"] // 3600 - HOUR for row in rows(path)) == [0] * 2 + [1] * 10
    database.delete_before((HOUR + 1) * 3600, 3)
    assert [row["at_s"] // 3600 - HOUR for row in rows(path)] == [1] * 10
    database.close()


# --- retention ---------------------------------------------------------------------------------


def test_old_rows_and_sums_are_deleted_in_small_steps_and_views_stay_exact(
    database: LedgerDatabase, path: Path
) -> None:
    for hour in range(40):
        database.write(batch(10, hour=HOUR + hour))
    before_s = (HOUR + 20) * 3600
    for _ in range(40):
        deleted_from = len(rows(path))
        database.delete_before(before_s, 20)
        assert deleted_from - len(rows(path)) <= 20
        with open_ledger(path) as reader:
            hours = dict(reader.by_period(1, 0, HOUR + 200, None, int))
            assert reader.by(["caller"], 0, HOUR + 200) == [
                (("billing",), Counts(10 * len(hours), 10 * len(hours)))
            ]
    assert min(hours) == HOUR + 20
    assert len(rows(path)) == 200


def test_rows_beyond_the_maximum_are_deleted_and_their_sums_stay(path: Path) -> None:
    database = LedgerDatabase(path, 400, 30)
    for hour in range(10):
        database.write(batch(10, hour=HOUR + hour))
    for _ in range(10):
        database.delete_before(0, 25)
    database.close()
    assert 30 <= len(rows(path)) <= 40
    with open_ledger(path) as reader:
        assert reader.by(["caller"], 0, HOUR + 200) == [(("billing",), Counts(100, 100))]


def test_nothing_is_deleted_soon_after_a_start_or_a_jump_of_the_clock(
    database: LedgerDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(batch(10))
    clock = [database._steady_since_s]
    wall = [HOUR * 3600 + 500 * 86_400.0]
    monkeypatch.setattr("nanonets_proxy.telemetry.ledger.database.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("nanonets_proxy.telemetry.ledger.database.time.time", lambda: wall[0])
    database.delete_old(1)
    for jump_s in (0, 1_000_000, -1_000_000):
        wall[0] += jump_s
        for _ in range(3):
            database.delete_old(1)
            assert len(rows(path)) == 10
            clock[0] += 199
            wall[0] += 199
    clock[0] += 600
    wall[0] += 600
    database.delete_old(1)
    assert rows(path) == []


def test_the_serving_process_loads_sqlite_only_with_a_ledger() -> None:
    code = "import nanonets_proxy.process.serve, sys; sys.exit('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
