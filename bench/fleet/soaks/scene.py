"""The fleet of a soak: three replicas that come and go, over a master, its replica and three Sentinels."""

import asyncio
import contextlib
import json
import os
import select
import signal
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from fleet.load import status_of
from support.commands.fleet_proxies import until
from support.commands.process import END_S, Running, proxy_to
from support.commands.redis_groups import SentinelGroup
from support.commands.restarts import restarted

REPLICAS: Final = 3
_CALLERS: Final = 8
_DRAIN_DELAY_S: Final = 8


class Sample(NamedTuple):
    """What a process uses."""

    age_s: float
    resident_mib: float
    descriptors: int
    threads: int


class Member:
    """A replica: its process, and those that replaced it by restarts.

    The numbers of ended processes may be those of others by now, so each process has a descriptor here.
    """

    def __init__(self, proxy: Running) -> None:
        self.proxy = proxy
        self.pid = proxy.process.pid
        self.samples: dict[int, list[Sample]] = {}
        """By process."""
        self._began_s = time.monotonic()
        self._processes = [os.pidfd_open(self.pid)]

    def signal(self, number: int) -> None:
        """Sends a signal to the process that serves."""
        signal.pidfd_send_signal(self._processes[-1], number)

    def restart(self) -> None:
        self.pid = restarted(self.proxy)
        self._began_s = time.monotonic()
        self._processes.append(os.pidfd_open(self.pid))

    def wait(self) -> None:
        """Waits for the end of all its processes."""
        for process in self._processes:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if not poll.poll(1000 * END_S):
                raise TimeoutError(f"process {self.pid} does not end")

    def end(self) -> None:
        """Ends all its processes."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
        self.wait()
        for process in self._processes:
            os.close(process)

    def sample(self) -> None:
        """Notes what the process that serves uses. Does nothing if it has ended."""
        folder = Path(f"/proc/{self.pid}")
        with contextlib.suppress(OSError, KeyError):
            lines = (line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            facts = {name: text.split() for name, text in lines}
            resident_mib, threads = int(facts["VmRSS"][0]) / 1024, int(facts["Threads"][0])
            descriptors = len(list((folder / "fd").iterdir()))
            age_s = time.monotonic() - self._began_s
            self.samples.setdefault(self.pid, []).append(Sample(age_s, resident_mib, descriptors, threads))

    def gate(self) -> dict[str, Any]:
        """Returns the status of its gate."""
        with urllib.request.urlopen(f"{self.proxy.admin_url}/status", timeout=END_S) as response:  # noqa: S310 - loopback, http
            gate: dict[str, Any] = json.load(response)["environments"][0]["gate"]
        return gate

    def reload(self) -> None:
        request = urllib.request.Request(  # noqa: S310 - loopback, http
            f"{self.proxy.admin_url}/reload", b"", {"X-Requested-With": "soak"}
        )
        urllib.request.urlopen(request, timeout=END_S).close()  # noqa: S310 - loopback, http


@dataclass
class Slot:
    """The place of a replica, whose callers go on at the next replica there."""

    member: Member
    kills: int = 0
    is_down: bool = False


class SoakScene:
    """Call `start` for each slot, then let callers call."""

    def __init__(self, stack: ExitStack, upstream: str, group: SentinelGroup) -> None:
        self.upstream = upstream
        self.group = group
        self.members: list[Member] = []
        """All that there were."""
        self.served = 0
        self.failed: Counter[str] = Counter()
        """Calls at living replicas that failed, by status and event."""
        self.excused = 0
        """Calls that failed because their replica was killed."""
        self.longest_s = 0.0
        self.event = "no event"
        self.ends = False
        self._stack = stack
        self.slots = [Slot(self.start()) for _ in range(REPLICAS)]

    def start(self) -> Member:
        """Starts a replica."""
        settings = ["--coordination", self.group.url, "--drain-delay", f"{_DRAIN_DELAY_S}s"]
        proxy = self._stack.enter_context(
            proxy_to(self.upstream, "--caller-header", "X-Caller", "--log-successes", "0", *settings)
        )
        member = Member(proxy)
        self._stack.callback(member.end)
        self.members.append(member)
        return member

    def kill(self, slot: Slot, away_s: float) -> None:
        """Kills a replica. Another one takes its place after `away_s`."""
        slot.kills, slot.is_down = slot.kills + 1, True
        slot.member.signal(signal.SIGKILL)
        time.sleep(away_s)
        slot.member = self.start()
        slot.is_down = False

    def replace(self, slot: Slot) -> None:
        """Starts another replica for a slot, and ends the former one, as a rolling update does."""
        former, slot.member = slot.member, self.start()
        former.signal(signal.SIGTERM)
        former.wait()

    def role(self, slot: Slot) -> str:
        return "leader" if slot.member.gate()["fleet"]["role"] == "leads" else "follower"

    def believed(self) -> str:
        """Returns the limit that the first replica shows, such as `40 in 4 s`."""
        scopes = self.slots[0].member.gate()["scopes"]
        return "; ".join(f"{scope['count']} in {scope['period_s']} s" for scope in scopes) or "nothing"

    def await_replication(self) -> None:
        """Waits until the servers can fail over."""
        until(self._is_replicated)

    def _is_replicated(self) -> bool:
        try:
            replication = self.group.replica.ask("INFO", "replication")
            return self.group.knows_replicas() and b"master_link_status:up" in replication
        except OSError:  # a server starts
            return False

    def leaks(self) -> list[str]:
        """Returns the claims that are left, a while after the load has ended."""
        left: list[str] = []
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            left = []
            for number, slot in enumerate(self.slots):
                gate = slot.member.gate()
                for owner in (gate, *gate["scopes"]):
                    if owner["waiting"] or owner["in_flight"]:
                        name = owner.get("name", "all scopes")
                        left.append(
                            f"replica {number}, {name}: {owner['waiting']} wait, {owner['in_flight']} in flight"
                        )
            if not left:
                break
            time.sleep(0.5)
        return left

    # --- callers ------------------------------------------------------------------------------------

    async def call(self) -> None:
        """Lets callers call without a pause until `ends`."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:
            await asyncio.gather(
                *(
                    self._calls(session, slot, f"r{number}c{caller}")
                    for number, slot in enumerate(self.slots)
                    for caller in range(_CALLERS)
                )
            )

    async def _calls(self, session: aiohttp.ClientSession, slot: Slot, caller: str) -> None:
        while not self.ends:
            kills, was_down, began_s, event = slot.kills, slot.is_down, time.monotonic(), self.event
            status = await status_of(session, slot.member.proxy.url, caller)
            if status == 200:
                self.served += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            else:
                if was_down or slot.kills != kills:
                    self.excused += 1
                else:
                    self.failed[f"{status or 'no response'}: {event}, {self.event}"] += 1
                await asyncio.sleep(0.1)
