"""Kills a proxy with jobs again and again, and compares its store with the requests that the upstream received.

`make soak-jobs` runs it: PYTHONPATH=tests python -m support.commands.job_kills ROUNDS SEED
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.commands.process import Running, proxy_to
from support.eventually import until
from support.raw_caller import RawCaller, request
from support.raw_upstream import Peer, RawUpstream, ok

_JOBS_IN_ROUND: Final = 6
_LONGEST_LIFE_S: Final = 0.03
_LATE_SHARE: Final = 0.8  # of the kills: after some 202s; the others may come during the first upload
_LONGEST_RESPONSE_S: Final = 0.02
_REFUSED_SHARE: Final = 0.1  # none after the last kill: each refusal closes the gate for a second
_LARGE_SHARE: Final = 0.2
_LARGE_BYTES: Final = 100_000  # goes to a file of its own
_END_S: Final = 120.0
_REFUSED: Final = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"


@dataclass
class KillRounds:
    """A proxy that is killed again and again, its upstream, and what both have promised and received."""

    folder: Path
    chance: random.Random
    executed: Counter[bytes] = field(default_factory=Counter)
    """How often the upstream received each target, without the refusals."""
    promised: dict[str, bytes] = field(default_factory=dict)
    """The target of each job that got a 202, by its location."""
    refuses: bool = True
    """Whether the upstream refuses requests now and then."""
    states: Counter[str] = field(default_factory=Counter)
    """How many jobs ended in each state."""

    async def run(self, rounds: int) -> None:
        """Raises AssertionError if a job was lost or sent twice."""
        async with RawUpstream(self._upstream) as upstream:
            for number in range(rounds):
                await asyncio.to_thread(self._live, str(upstream.origin), number, asyncio.get_running_loop())
            self.refuses = False
            await asyncio.to_thread(self._end, str(upstream.origin), asyncio.get_running_loop())

    async def _upstream(self, peer: Peer) -> None:
        """Serves one connection. It breaks when the proxy is killed."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await peer.head()
                target = head.split(b" ", 2)[1]
                body = await peer.read_body(head)
                assert body == _body(len(body), target), target
                if self.refuses and self.chance.random() < _REFUSED_SHARE:
                    await peer.send(_REFUSED)
                    continue
                self.executed[target] += 1
                await asyncio.sleep(self.chance.random() * _LONGEST_RESPONSE_S)
                await peer.send(ok(target))

    def _proxy(self, upstream: str) -> AbstractContextManager[Running]:
        # Only two can be sent at a time, so that others are killed in the queue.
        return proxy_to(upstream, "--jobs", str(self.folder / "jobs"), "--pool-size", "2")

    def _live(self, upstream: str, number: int, loop: asyncio.AbstractEventLoop) -> None:
        with self._proxy(upstream) as child:
            address = child.url.removeprefix("http://")
            asyncio.run_coroutine_threadsafe(self._submit_and_kill(child, address, number), loop).result()
            child.process.wait(_END_S)

    async def _submit_and_kill(self, child: Running, address: str, number: int) -> None:
        submissions = [
            asyncio.create_task(self._submit(address, b"/api/v4/%d-%d" % (number, job)))
            for job in range(_JOBS_IN_ROUND)
        ]
        if self.chance.random() < _LATE_SHARE:
            enough = len(self.promised) + self.chance.randint(1, _JOBS_IN_ROUND)
            await until(lambda: len(self.promised) >= enough, _END_S)
        await asyncio.sleep(self.chance.random() * _LONGEST_LIFE_S)
        os.kill(child.process.pid, signal.SIGKILL)
        await asyncio.gather(*submissions)

    async def _submit(self, address: str, target: bytes) -> None:
        length = _LARGE_BYTES if self.chance.random() < _LARGE_SHARE else 20
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with await RawCaller.connect(address) as caller:
                await caller.send(request(b"POST", target, b"Prefer: respond-async", body=_body(length, target)))
                response = await caller.response()
                assert response.status == 202, response
                self.promised[response.value(b"location").decode()] = target

    def _end(self, upstream: str, loop: asyncio.AbstractEventLoop) -> None:
        with self._proxy(upstream) as child:
            address = child.url.removeprefix("http://")
            asyncio.run_coroutine_threadsafe(self._check(address), loop).result()

    async def _check(self, address: str) -> None:
        faults = []
        async with asyncio.timeout(_END_S), await RawCaller.connect(address) as caller:
            for location, target in self.promised.items():
                while (job := await _job(caller, location))["state"] in ("queued", "sending"):  # noqa: ASYNC110 - another process changes it
                    await asyncio.sleep(0.01)
                state, sent = job["state"], self.executed[target]
                self.states[state] += 1
                if state not in ("done", "unknown") or sent > 1 or (state == "done" and sent != 1):
                    faults.append(f"{target!r} is {state}, and was sent {sent} times")
                if state == "done":
                    assert (await caller.get(location.encode() + b"/result")).body == target
        faults += [f"{target!r} was sent {sent} times" for target, sent in self.executed.items() if sent > 1]
        assert not faults, faults


async def _job(caller: RawCaller, location: str) -> Any:
    response = await caller.get(location.encode())
    assert response.status == 200, response
    return response.json()


def _body(length: int, target: bytes) -> bytes:
    return (target * (length // len(target) + 1))[:length]


async def _main(rounds: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kills = KillRounds(Path(folder), random.Random(seed))
        await kills.run(rounds)
    print(f"{rounds} kills, {len(kills.promised)} jobs: {dict(kills.states)}; none lost, none sent twice")  # noqa: T201 - the result


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
