"""What `check` says about the directory of the jobs, and that it changes nothing."""

import shutil
from pathlib import Path

import pytest

from nanonets_proxy.cli.check import _check_jobs
from nanonets_proxy.core.jobs.lifecycle import JobEvent, JobState
from nanonets_proxy.jobs.database import JobDatabase
from nanonets_proxy.jobs.inspection import inspect_jobs
from nanonets_proxy.jobs.policy import LEFT_FREE_BYTES, JobsUnusable
from nanonets_proxy.settings import load_settings
from support.job_scene import new_job

UPSTREAM = "https://app.nanonets.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def make_jobs(folder: Path, count: int, upstream: str = UPSTREAM) -> None:
    """Stores jobs, and cancels the first one."""
    folder.mkdir(mode=0o700)
    database = JobDatabase(folder / "jobs.db", upstream)
    for number in range(count):
        database.submit(new_job(number, None, b"x"), None, count)
    database.change("job-0", JobEvent.CANCEL)
    database.close()


def test_a_directory_that_is_missing_will_be_made_and_is_not_made_now(folder: Path) -> None:
    inspection = inspect_jobs(folder, UPSTREAM)
    assert not inspection.tally.jobs
    assert inspection.free_bytes > 0
    assert not folder.exists()


def test_the_jobs_are_counted(folder: Path) -> None:
    make_jobs(folder, 3)
    tally = inspect_jobs(folder, UPSTREAM).tally
    assert (tally.jobs[JobState.QUEUED], tally.jobs[JobState.CANCELLED]) == (2, 1)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("missing/jobs", "cannot be made: .*missing does not exist"),
        ("file", "file is not a directory"),
        ("file/jobs", "file is not a directory"),
        ("other", "jobs.db has the jobs for sandbox, and not for https://app.nanonets.com: name another directory"),
    ],
)
def test_a_directory_that_a_start_would_reject_is_rejected(name: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    make_jobs(tmp_path / "other", 1, "sandbox")
    with pytest.raises(JobsUnusable, match=fault):
        inspect_jobs(tmp_path / name, UPSTREAM)


@pytest.mark.parametrize(
    ("total", "warns", "end"),
    [("1MiB", False, "MiB free"), ("1000000GiB", True, ": the disk has less room than jobs_total allows")],
)
def test_check_has_a_line_for_the_jobs(folder: Path, total: str, warns: bool, end: str) -> None:
    make_jobs(folder, 3)
    settings = load_settings({"jobs": str(folder), "jobs_total": total}, {}, dirs=[]).settings
    (result,) = _check_jobs(settings, UPSTREAM)
    assert (result.name, result.ok, result.warning) == ("jobs", True, warns)
    assert result.detail.startswith(f"{folder} is writable: 2 queued, 1 cancelled, 0 of ")
    assert result.detail.endswith(end)


@pytest.mark.parametrize(("less_bytes", "warns"), [(0, False), (1, True)])
def test_check_warns_if_jobs_total_does_not_leave_the_room_that_submissions_leave(
    folder: Path, monkeypatch: pytest.MonkeyPatch, less_bytes: int, warns: bool
) -> None:
    settings = load_settings({"jobs": str(folder), "jobs_total": "1MiB"}, {}, dirs=[]).settings
    disk = shutil.disk_usage("/")._replace(free=settings.jobs_total + LEFT_FREE_BYTES - less_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    (result,) = _check_jobs(settings, UPSTREAM)
    assert result.warning == warns


def test_check_fails_for_the_jobs_of_another_upstream(folder: Path) -> None:
    make_jobs(folder, 1, "sandbox")
    settings = load_settings({"jobs": str(folder)}, {}, dirs=[]).settings
    (result,) = _check_jobs(settings, UPSTREAM)
    assert (result.ok, "has the jobs for sandbox" in result.detail) == (False, True)
