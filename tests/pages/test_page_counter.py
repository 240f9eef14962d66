"""The process that counts pages, and what happens when it ends."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nanonets_proxy.pages import page_counter
from nanonets_proxy.pages.page_counter import PageCounter
from support.documents import FORM, form, pdf, pdf_bomb, tiff
from support.eventually import until


def variables_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


LONG_S = 60.0
"""A busy machine must not make a count late."""

PDF = b"application/pdf"
HOSTILE = pdf(7, padding=40_000_000)[:-500]
"""PDFium searches the whole file for its lost table, which takes more than 20 ms."""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test must not wait for the next process."""
    monkeypatch.setattr(page_counter, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
async def counter() -> AsyncIterator[PageCounter]:
    counter = PageCounter(asyncio.get_running_loop())
    await counter.start()
    assert counter._ready.is_set()
    yield counter
    counter.close()


async def test_uploads_are_counted_from_their_pieces_or_from_a_file(counter: PageCounter) -> None:
    upload = form(pdf(7), tiff(2))
    assert await counter.count(FORM, [upload[:100], upload[100:]], LONG_S) == 9
    with tempfile.TemporaryFile() as file:
        file.write(upload)
        file.flush()
        assert await counter.count(FORM, file.fileno(), LONG_S) == 9
        assert file.tell() == len(upload)
    assert await counter.count(FORM, [], LONG_S) is None


async def test_a_hostile_file_ends_the_process_and_the_next_one_counts_again(counter: PageCounter) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(HOSTILE)
        file.flush()
        hostile, other = counter.count(PDF, file.fileno(), LONG_S), counter.count(PDF, [pdf(2)], LONG_S)
    assert await hostile is None
    assert await other is None
    await until(counter._ready.is_set)
    assert await counter.count(PDF, [pdf(2)], LONG_S) == 2


async def test_a_bomb_costs_neither_time_nor_memory(counter: PageCounter) -> None:
    assert await counter.count(PDF, [pdf_bomb(300)], LONG_S) is None
    await until(counter._ready.is_set)
    assert await counter.count(PDF, [pdf(2)], LONG_S) == 2


async def test_a_huge_file_is_not_read(counter: PageCounter) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(pdf(7))
        file.truncate(500_000_000)
        file.seek(0, os.SEEK_END)
        file.write(pdf(7)[-200:])
        file.flush()
        await counter.count(PDF, file.fileno(), LONG_S)
    await until(counter._ready.is_set)
    assert await counter.count(PDF, [pdf(2)], LONG_S) == 2


async def test_a_count_that_takes_too_long_is_unknown(counter: PageCounter) -> None:
    assert counter._process is not None
    os.kill(counter._process.pid, signal.SIGSTOP)
    counts = [counter.count(PDF, [pdf(2)], 0.02) for _ in range(100)]
    assert {await count for count in counts} == {None}
    assert not counter._results
    os.kill(counter._process.pid, signal.SIGCONT)
    assert await counter.count(PDF, [pdf(3)], LONG_S) == 3


async def test_a_cancelled_count_harms_no_other(counter: PageCounter) -> None:
    counter.count(PDF, [pdf(2)], LONG_S).cancel()
    assert await counter.count(PDF, [pdf(3)], LONG_S) == 3


async def test_the_process_has_no_variables_and_ends_with_its_counter() -> None:
    counter = PageCounter(asyncio.get_running_loop())
    await counter.start()
    assert counter._process is not None
    pid = counter._process.pid
    if sys.platform == "linux":
        assert variables_of(pid) == b""
    counter.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await counter.count(PDF, [pdf(2)], LONG_S) is None


async def test_without_a_process_pages_are_unknown_and_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = PageCounter(asyncio.get_running_loop())
    with monkeypatch.context() as broken:
        broken.setattr(page_counter, "_MAX_START_S", 0.01)
        broken.setattr(sys, "executable", "/nowhere")
        await counter.start()
        assert await counter.count(PDF, [pdf(2)], LONG_S) is None
    await until(counter._ready.is_set)
    assert await counter.count(PDF, [pdf(2)], LONG_S) == 2
    counter.close()
