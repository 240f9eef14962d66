"""Looking names up, while a name server answers late or never."""

import asyncio
import gc
import socket
import threading
from collections import Counter

import pytest

from nanonets_proxy.aio.look_up import LookUps
from support import eventually


class Resolver:
    """Answers once it may."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.may_answer = threading.Event()
        self.error: OSError | None = None

    def __call__(self, host: str, *_: object, **__: object) -> list[object]:
        self.asked[host] += 1
        assert threading.current_thread().daemon
        self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


async def test_a_name_is_looked_up_again_only_after_its_latest_look_up_has_ended(resolver: Resolver) -> None:
    look_ups = LookUps()
    for _ in range(3):
        with pytest.raises(TimeoutError, match="the look-up of the name a takes longer than"):
            await look_ups.wait("a", 0.01)
    assert resolver.asked == {"a": 1}
    resolver.may_answer.set()
    await look_ups.wait("a", eventually.WAIT_S)
    await look_ups.wait("a", eventually.WAIT_S)
    assert resolver.asked["a"] in (2, 3)


async def test_a_look_up_that_fails_after_all_have_given_up_is_not_reported(resolver: Resolver) -> None:
    resolver.error = socket.gaierror(-3, "Temporary failure in name resolution")
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    look_ups = LookUps()
    with pytest.raises(TimeoutError):
        await look_ups.wait("a", 0.01)
    resolver.may_answer.set()
    await eventually.until(lambda: not look_ups._running)
    gc.collect()
    assert reported == []


async def test_a_name_does_not_wait_for_another_one(resolver: Resolver) -> None:
    look_ups = LookUps()
    for name in ("a", "b"):
        with pytest.raises(TimeoutError):
            await look_ups.wait(name, 0.01)
    assert resolver.asked == {"a": 1, "b": 1}
    resolver.may_answer.set()


async def test_an_unknown_name_is_an_error_for_all_that_wait(resolver: Resolver) -> None:
    resolver.error = socket.gaierror(-2, "Name or service not known")
    look_ups = LookUps()
    waiting = [asyncio.ensure_future(look_ups.wait("a", eventually.WAIT_S)) for _ in range(2)]
    await eventually.until(lambda: bool(resolver.asked))
    resolver.may_answer.set()
    for each in waiting:
        with pytest.raises(OSError, match="Name or service not known"):
            await each
    assert resolver.asked == {"a": 1}
