"""Change watches: when a source is read again."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nanonets_proxy.keys import change_watch
from nanonets_proxy.keys.change_watch import FileWatch, NoChanges, PeriodicWatch
from support.eventually import WAIT_S


async def assert_change_is_noticed(watch: FileWatch, change: Callable[[], object]) -> None:
    waiting = asyncio.ensure_future(watch.wait())
    await asyncio.sleep(0)
    change()
    await asyncio.wait_for(waiting, WAIT_S)


async def test_a_file_may_be_written_replaced_removed_and_created_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    watch = FileWatch(path)
    await assert_change_is_noticed(watch, lambda: path.write_text("two!"))
    (tmp_path / "new").write_text("three")
    await assert_change_is_noticed(watch, lambda: (tmp_path / "new").rename(path))
    await assert_change_is_noticed(watch, path.unlink)
    await assert_change_is_noticed(watch, lambda: path.write_text("four"))
    await assert_change_is_noticed(watch, lambda: path.chmod(0o400))


async def test_the_target_of_a_link_in_another_directory_is_watched_too(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "key"
    target.parent.mkdir()
    target.write_text("one")
    link = tmp_path / "mount" / "key"
    link.parent.mkdir()
    link.symlink_to(target)
    watch = FileWatch(link)
    await assert_change_is_noticed(watch, lambda: target.write_text("two!"))
    await assert_change_is_noticed(watch, lambda: (link.unlink(), link.write_text("three")))


async def test_a_directory_that_is_created_later_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "later" / "key"
    watch = FileWatch(path)
    await assert_change_is_noticed(watch, lambda: (path.parent.mkdir(), path.write_text("one")))
    await assert_change_is_noticed(watch, lambda: path.write_text("two!"))


async def test_a_loop_of_links_may_be_replaced_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to(path)
    watch = FileWatch(path)
    await assert_change_is_noticed(watch, lambda: (path.unlink(), path.write_text("one")))


async def assert_waits_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, rest: str) -> None:
    """Writes a file in two parts. Its change must be noticed after the second one."""
    monkeypatch.setattr(change_watch, "_CHECK_EVERY_S", 0.001)
    path = tmp_path / "key"
    path.write_text("one")
    watch = FileWatch(path)
    waiting = asyncio.ensure_future(watch.wait())
    with path.open("w") as file:
        file.write(begun)
        file.flush()
        await asyncio.sleep(0.2)
        assert not waiting.done()
        file.write(rest)
    await asyncio.wait_for(waiting, WAIT_S)
    assert path.read_text() == begun + rest


async def test_an_empty_file_is_not_read_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_watch, "_MOST_STABLE_CHECKS", 10_000)  # long enough for a busy machine
    await assert_waits_for_the_rest(tmp_path, monkeypatch, "", "two!")


async def test_a_file_that_is_still_written_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_watch, "_STABLE_S", 1.0)  # so that the second part comes in time on a busy machine
    await assert_waits_for_the_rest(tmp_path, monkeypatch, "two", " and more")


async def test_the_watch_outlasts_a_time_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as at the limit of the container's processes, `pids.max`."""
    monkeypatch.setattr(change_watch, "_CHECK_EVERY_S", 0.001)
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread)
        if len(refused) == 3:
            monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    path = tmp_path / "key"
    path.write_text("one")
    watch = FileWatch(path)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    await assert_change_is_noticed(watch, lambda: path.write_text("two!"))
    assert len(refused) == 3


async def test_a_file_is_read_again_soon_after_a_failed_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_watch, "_CHECK_EVERY_S", 0.001)
    path = tmp_path / "key"
    path.write_text("one")
    watch = FileWatch(path)
    waiting = asyncio.ensure_future(watch.wait(failed=True))
    path.write_text("two!")
    await asyncio.wait_for(waiting, change_watch._RETRY_S)  # the change comes first
    monkeypatch.setattr(change_watch, "_RETRY_S", 0.01)
    await asyncio.wait_for(watch.wait(failed=True), WAIT_S)


async def test_a_constant_source_is_never_read_again() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(NoChanges().wait(), 0.05)


async def test_a_periodic_watch_asks_for_each_interval() -> None:
    waits = iter([0.01, 0.02])
    watch = PeriodicWatch(lambda: next(waits))
    began_s = time.monotonic()
    await watch.wait()
    await watch.wait()
    assert time.monotonic() - began_s >= 0.03
