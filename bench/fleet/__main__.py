"""Runs a fleet of real proxies before one simulated limit, and prints its goodput, refusals and fairness.

Times are real, so the load of the machine affects the figures. They must not decide about a build.
"""

import argparse
import sys
import time

from fleet import closures, extra, faults, latency, limits, sizes, takeover, upgrade
from fleet.soaks import days, real


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", default="3,8")
    parser.add_argument("--kinds", help="kinds of limits with commas between them")
    parser.add_argument("--seconds", type=float, default=24.0, help="of each run of --events")
    parser.add_argument("--events", default="", help="events with commas between them, or all")
    parser.add_argument("--rounds", type=int, default=1, help="of all tables")
    parser.add_argument("--alone", action="store_true", help="without coordination")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of --soak and --days")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--limits", action="store_true", help="compare fleets and one proxy, for each kind of limit")
    modes.add_argument("--latency", action="store_true", help="measure what a fleet adds to a request")
    modes.add_argument("--closures", action="store_true", help="measure how soon a 429 closes the scope everywhere")
    modes.add_argument("--takeover", action="store_true", help="measure how soon a dead replica's share is used")
    modes.add_argument("--soak", type=float, metavar="MINUTES", help="let random events happen to a fleet of three")
    modes.add_argument("--simulate", action="store_true", help="simulate faults in virtual time instead")
    modes.add_argument("--sizes", action="store_true", help="simulate fleets of up to 500 replicas")
    modes.add_argument(
        "--upgrade",
        nargs="?",
        const="",
        metavar="COMMAND",
        help="upgrade a fleet from another version, and back; no command: this version with another protocol",
    )
    parser.add_argument(
        "--days", type=float, help="of --simulate: one fleet for days, with a fault each 10 minutes"
    )
    parser.add_argument("--drain-delay", type=float, default=8.0, help="of an upgrade, in seconds")
    return parser


def main() -> int:
    given = _parser().parse_args()
    kinds = (given.kinds or "window,bucket").split(",")
    replicas = [int(count) for count in given.replicas.split(",")]
    if given.days is not None:
        return days.main(given.days, given.seed)
    if given.soak is not None:
        return real.main(given.soak, given.seed)
    if given.simulate:
        faults.main(replicas)
    elif given.sizes:
        sizes.main(given.rounds)
    elif given.upgrade is not None:
        upgrade.main(given.upgrade, replicas[0], kinds, given.drain_delay)
    elif given.limits:
        kinds = (given.kinds or ",".join([*limits.CASES, "uneven"])).split(",")
        limits.main(replicas, kinds, given.rounds)
    elif given.latency:
        latency.main()
    elif given.closures:
        closures.main(replicas, given.rounds)
    elif given.takeover:
        takeover.main(replicas, given.rounds)
    else:
        names = given.events.split(",") if given.events else []
        extra.main(replicas, kinds, names, given.seconds, given.rounds, alone=given.alone)
    return 0


if __name__ == "__main__":
    sys.exit(main())
