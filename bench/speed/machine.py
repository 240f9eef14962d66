"""The date, machine and software versions of a run."""

import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from speed.peers import PEERS, Peer

_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+[0-9A-Za-z.+-]*")


def facts() -> Mapping[str, str]:
    """Returns the facts of this run: texts by name."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{system}, Linux {platform.release()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=12", "HEAD")
        + (" and changes" if _git("diff", "HEAD", "--", "proxy") else ""),
    }


class OtherWork:
    """Measures the CPU time of unrelated processes, from its construction on."""

    def __init__(self) -> None:
        self._started_at_s = time.monotonic()
        self._busy_s = _busy_s()
        self._own_s = _own_s()

    def cores(self) -> float:
        """Returns the average number of cores that unrelated processes kept busy."""
        others_s = _busy_s() - self._busy_s - (_own_s() - self._own_s)
        return max(0.0, others_s / (time.monotonic() - self._started_at_s))


def _busy_s() -> float:
    """Returns the CPU time of all cores so far: user, nice, system, irq, softirq and steal of proc_stat(5)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Returns the CPU time of this process and of its ended children."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def versions(peers: Iterable[str], tools: Path) -> Mapping[str, str]:
    """Returns the versions by the peers' names."""
    return {peer.name: _version(peer, tools) for peer in PEERS if peer.name in peers}


def _version(peer: Peer, tools: Path) -> str:
    done = subprocess.run(peer.version(tools), check=True, capture_output=True, text=True)
    found = _VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "?"


def _git(*arguments: str) -> str:
    """Returns git's output; empty outside a checkout."""
    here = Path(__file__).parents[2]
    done = subprocess.run(["git", "-C", str(here), *arguments], check=False, capture_output=True, text=True)
    return done.stdout.strip()
