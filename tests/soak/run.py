"""Runs callers, fault relays, the real proxy and the upstream, then checks for wrong responses and leaks."""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nanonets_proxy.core.net.addresses import Origin
from soak.relay import Fault, FaultRates, FaultRelay
from soak.upstream import SoakUpstream
from support.eventually import WAIT_S, until
from support.proxy_harness import RunningProxy, program_tasks, running_proxy
from support.raw_caller import RawCaller, RawResponse, chunked

_CALLERS: Final = 40
LEAST_WHOLE_PER_S: Final = 20
"""A run takes longer than asked for until it has this many complete responses per second asked for."""
_NEAR: Final = FaultRates(refuse=0.01, end=0.08, reset=0.08, stall=0.08, drip=0.08, stall_s=0.2)
_FAR: Final = FaultRates(refuse=0.02, end=0.08, reset=0.08, stall=0.08, drip=0.08, stall_s=1.2)
_SETTINGS: Final = {
    "connect_timeout": "1s",
    "first_byte_timeout": "1s",
    "idle_timeout": "1s",
    "head_timeout": "1s",
    "max_wait": "5s",
    "retries": 2,
    "retry_backoff": "10ms",
    "body_memory": "16KiB",
    "body_memory_total": "256KiB",
    "log_level": "error",
}


@dataclass(slots=True)
class Outcome:
    """What the callers and the upstream saw during one run."""

    whole: int = 0
    """The number of complete and correct responses."""
    clean: Counter[str] = field(default_factory=Counter)
    """Error responses and broken connections, by kind: the faults explain them."""
    wrong: list[str] = field(default_factory=list)
    """Responses that were missing, incomplete, or belonged to another request. It must be empty."""
    faults: Counter[Fault] = field(default_factory=Counter)
    posts_sent_twice: list[int] = field(default_factory=list)
    strangers: list[bytes] = field(default_factory=list)
    """Request heads that reached the upstream although no caller sent them."""
    descriptors: Counter[str] = field(default_factory=Counter)
    """Descriptors that are open at the end and were not at the beginning, by kind."""
    resident_bytes: tuple[int, int] = (0, 0)
    """Resident memory after a third of the time, and at the end."""
    spool_files: int = 0


async def soak(seconds: float, seed: int, spool_dir: Path) -> Outcome:
    """Runs the callers for `seconds`. `seed` determines the faults.

    Raises:
        TimeoutError: tasks, permits, waiting callers or kept bodies remain.
    """
    outcome = Outcome()
    async with SoakUpstream(random.Random(seed)):
        pass  # the event loop opens a reserve descriptor with its first listener, and keeps it
    descriptors = _descriptors()
    chance = random.Random(seed)
    async with (
        SoakUpstream(random.Random(seed + 1)) as upstream,
        FaultRelay(upstream.port, _FAR, random.Random(seed + 2)) as far,
        running_proxy(Origin("http", "127.0.0.1", far.port), spool_dir=str(spool_dir), **_SETTINGS) as proxy,
    ):
        port = int(proxy.address.rpartition(":")[2])
        async with FaultRelay(port, _NEAR, random.Random(seed + 3)) as near:
            await _call(seconds, near.port, chance, outcome)
            outcome.faults = near.faults + far.faults
        await _check_idle(proxy)
    outcome.posts_sent_twice = [number for number, times in upstream.posts.items() if times > 1]
    outcome.strangers = upstream.strangers
    outcome.spool_files = sum(1 for _ in os.scandir(spool_dir))
    await until(lambda: not program_tasks())
    gc.collect()
    outcome.descriptors = _descriptors() - descriptors
    return outcome


async def _check_idle(proxy: RunningProxy) -> None:
    await proxy.check_idle()
    await until(lambda: not proxy.connections)


async def _call(seconds: float, port: int, chance: random.Random, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    numbers = itertools.count(1)
    ends_s = loop.time() + seconds
    latest_s = ends_s + WAIT_S

    def goes_on() -> bool:
        now_s = loop.time()
        return now_s < ends_s or (now_s < latest_s and outcome.whole <= LEAST_WHOLE_PER_S * seconds)

    callers = [
        asyncio.create_task(_caller(port, random.Random(chance.random()), numbers, goes_on, outcome))
        for _ in range(_CALLERS)
    ]
    await asyncio.sleep(seconds / 3)
    early = _resident_bytes()
    await asyncio.gather(*callers)
    outcome.resident_bytes = early, _resident_bytes()


async def _caller(
    port: int, chance: random.Random, numbers: Iterator[int], goes_on: Callable[[], bool], outcome: Outcome
) -> None:
    """Opens one connection after another, and sends 1 to 20 requests on each."""
    while goes_on():
        try:
            async with await RawCaller.connect(f"127.0.0.1:{port}") as caller:
                for _ in range(chance.randint(1, 20)):
                    if not await _request(caller, next(numbers), chance, outcome):
                        break
        except (OSError, asyncio.IncompleteReadError) as error:
            outcome.clean[type(error).__name__] += 1


async def _request(caller: RawCaller, number: int, chance: random.Random, outcome: Outcome) -> bool:
    """Sends one request and judges its response. Returns whether the connection can carry another request."""
    body = os.urandom(int(10 ** chance.uniform(0, 5))) if chance.random() < 0.5 else b""
    head = b"%b /r/%d HTTP/1.1\r\nHost: localhost\r\n" % (b"POST" if body else b"GET", number)
    if not body:
        data = head + b"\r\n"
    elif chance.random() < 0.5:
        data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
    if chance.random() < 0.02:
        await caller.send(data[: chance.randrange(len(data))])
        caller.reset()
        outcome.clean["hung up"] += 1
        return False
    try:
        sending = asyncio.create_task(caller.send(data))
        try:
            response = await caller.response()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    except TimeoutError:  # after WAIT_S, which is far longer than the sum of the proxy's time limits
        outcome.wrong.append(f"{number}: no response and no end")
        return False
    except AssertionError as error:
        outcome.wrong.append(f"{number}: {error}")
        return False
    _judge(number, body, response, outcome)
    return not response.values(b"connection")


def _judge(number: int, body: bytes, response: RawResponse, outcome: Outcome) -> None:
    if response.status == 200:
        facts = [int(response.value(name)) for name in (b"X-Number", b"X-Sum", b"X-Got")]
        if facts == [number, zlib.crc32(response.body), zlib.crc32(body)]:
            outcome.whole += 1
        else:
            outcome.wrong.append(f"{number}: got {response.head!r}")
    elif response.status != 500 and (response.values(b"Proxy-Status") or response.values(b"X-Busy")):
        outcome.clean[response.status_line.decode()] += 1
    else:
        outcome.wrong.append(f"{number}: {response.head!r}")


def _descriptors() -> Counter[str]:
    """Counts open descriptors by kind: a file's path, or `socket`, `pipe`, `anon_inode`."""
    kinds: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            kinds[str(link.readlink()).partition(":[")[0]] += 1
    return kinds


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
