"""Runs a fleet of real proxies before one simulated limit, and prints its goodput, refusals and fairness.

Times are real, so the load of the machine affects the figures. They must not decide about a build.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter

from fleet import faults, latency, limits, upgrade
from fleet.load import KINDS, jain
from fleet.proxies import Fleet, fleet, load
from support.commands.process import Running


def run(
    name: str, replicas: int, kind: str, callers: list[int], seconds: float, event: str = "", *, alone: bool = False
) -> None:
    dead = set[int]()
    with fleet(replicas, KINDS[kind][0], alone=alone) as own:
        results = asyncio.run(load(own, callers, seconds, lambda: dead.update(_act(event, own)), 0.2 * seconds))
        time.sleep(0.3)
    changes = Counter(e.get("reason") for p in own.proxies for e in p.all_events() if e["event"] == "fleet_alone")
    living = [number for number in range(len(callers)) if number not in dead]
    names = [f"r{n}c{c}" for n in living for c in range(callers[n])]
    of_callers = jain(results.by(lambda each: each[1], list(names)))
    of_replicas = jain(results.by(lambda each: each[0], list(living)))
    goodput = results.admitted / (KINDS[kind][1] * results.elapsed_s)
    per_1000 = 1000 * results.refused / max(1, results.admitted)
    cells = [
        name,
        str(replicas),
        kind,
        f"{goodput:.2f}",
        f"{per_1000:.0f}",
        f"{results.refused}",
        f"{of_callers:.3f}",
        f"{of_replicas:.3f}",
        results.failures(living),
        results.failures(dead) if dead else "",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)
    print(f"   alone: {dict(changes)}", flush=True)


EVENTS = (
    "SIGKILL of a follower",
    "SIGKILL of the leader",
    "SIGSTOP of a follower for 3 s",
    "SIGSTOP of the leader for 3 s",
    "SIGKILL of Redis; back after 3 s",
    "SIGSTOP of Redis for 3 s",
    "FLUSHALL",
)


def _act(event: str, own: Fleet) -> set[int]:
    """Lets the event happen. Returns the numbers of the replicas that it has killed."""
    redis = own.redis
    match event:
        case "":
            pass
        case "SIGSTOP of Redis for 3 s":
            redis.signal(signal.SIGSTOP)
            time.sleep(3)
            redis.signal(signal.SIGCONT)
        case "SIGKILL of Redis; back after 3 s":
            redis.kill()
            time.sleep(3)
            redis.start()
        case "FLUSHALL":
            redis.ask("FLUSHALL")
        case "SIGKILL of the leader":
            return _kill(own, _leader(own))
        case "SIGKILL of a follower":
            return _kill(own, _follower(own))
        case "SIGSTOP of the leader for 3 s":
            _stop(_leader(own))
        case "SIGSTOP of a follower for 3 s":
            _stop(_follower(own))
        case _:
            raise ValueError(event)
    return set()


def _kill(own: Fleet, proxy: Running) -> set[int]:
    proxy.process.kill()
    return {own.proxies.index(proxy)}


def _leader(own: Fleet) -> Running:
    for proxy in own.proxies:
        roles = [e["role"] for e in proxy.all_events() if e["event"] == "fleet_joined"]
        if roles and roles[-1] == "leader":
            return proxy
    return own.proxies[0]


def _follower(own: Fleet) -> Running:
    leader = _leader(own)
    return next(proxy for proxy in own.proxies if proxy is not leader)


def _stop(proxy: Running) -> None:
    proxy.process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    proxy.process.send_signal(signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", default="3,8")
    parser.add_argument("--kinds", help="kinds of limits with commas between them")
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--events", default="", help="events with commas between them; all: none, and each one")
    parser.add_argument(
        "--limits", action="store_true", help="compare fleets and one proxy, for each kind of limit"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of --limits")
    parser.add_argument("--latency", action="store_true", help="only measure what a fleet adds to a request")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--simulate", action="store_true", help="simulate faults in virtual time instead")
    parser.add_argument(
        "--upgrade",
        nargs="?",
        const="",
        metavar="COMMAND",
        help="upgrade a fleet from another version, and back; no command: this version with another protocol",
    )
    parser.add_argument("--drain-delay", type=float, default=8.0, help="of an upgrade, in seconds")
    given = parser.parse_args()
    kinds = (given.kinds or "window,bucket").split(",")
    if given.simulate:
        faults.main([int(count) for count in given.replicas.split(",")])
        return 0
    if given.upgrade is not None:
        upgrade.main(given.upgrade, int(given.replicas.split(",")[0]), kinds, given.drain_delay)
        return 0
    if given.limits:
        kinds = (given.kinds or ",".join([*limits.CASES, "uneven"])).split(",")
        limits.main([int(count) for count in given.replicas.split(",")], kinds, given.rounds)
        return 0
    if given.latency:
        latency.main()
        return 0
    events = ["", *EVENTS] if given.events == "all" else given.events.split(",")
    columns = (
        "what",
        "replicas",
        "limit",
        "goodput",
        "429s per 1,000",
        "429s",
        "Jain, callers of living replicas",
        "Jain, living replicas",
        "failed calls of living replicas",
        "of killed ones",
    )
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for replicas in map(int, given.replicas.split(",")):
        for kind in kinds:
            for event in events:
                run(
                    event or "steady",
                    replicas,
                    kind,
                    [max(2, 24 // replicas)] * replicas,
                    given.seconds,
                    event,
                    alone=given.alone,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
