"""Starts the benchmark's processes on one core, and measures them by the kernel's accounting."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

PROXY_CORE: Final = 0
LOAD_CORE: Final = 1
"""The load and the upstream share a core, so that the proxy has its own core."""

_PROC: Final = Path("/proc")
_END_S: Final = 20.0
_LOAD_S: Final = 300.0
"""The longest duration of a load; the slowest peer needs a tenth for 1 GiB."""
_POLL_S: Final = 0.002


class LoadFailed(Exception):
    """The load found no connection, or a wrong response."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running command and its child processes."""

    pid: int
    spawned_at_s: float
    """By `time.perf_counter`."""
    poll: Callable[[], int | None]
    log: Path
    """The command's output."""

    def cpu_s(self) -> float:
        """Returns the CPU time of the process tree so far."""
        return sum(_cpu_ns(pid) for pid in tree(self.pid)) / 1e9

    def reset_peak(self) -> int:
        """Resets the peak of resident memory, and returns resident memory in bytes."""
        for pid in tree(self.pid):
            (_PROC / str(pid) / "clear_refs").write_text("5")  # proc(5): 5 resets the peak
        return self.peak_bytes()

    def peak_bytes(self) -> int:
        """Returns the peak of resident memory since `reset_peak`."""
        return sum(kib_of("VmHWM", (_PROC / str(pid) / "status").read_text()) for pid in tree(self.pid)) * 1024

    def resident_bytes(self) -> int:
        """Returns the resident memory of the process tree; shared memory counts once per process."""
        return sum(_resident_bytes(pid) for pid in tree(self.pid))


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """Pins `command` to a core. `taskset` executes it in its own process, so the pid is the command's."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def running(
    command: Sequence[str], *, core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Runs `command` during the block, with its output in `log`."""
    with log.open("wb") as output:
        spawned_at_s = time.perf_counter()
        process = subprocess.Popen(
            on_core(core, command), env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Started(process.pid, spawned_at_s, process.poll, log)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_on_load_core(command: Sequence[str], *, stdin: IO[bytes] | None = None) -> bytes:
    """Returns the standard output of a command on the load's core. Raises LoadFailed, or TimeoutExpired."""
    done = subprocess.run(
        on_core(LOAD_CORE, command),
        check=False,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        timeout=_LOAD_S,
    )
    if done.returncode:
        raise LoadFailed(last_line(done.stderr) or f"the load ended with the status {done.returncode}")
    sys.stderr.buffer.write(done.stderr)
    return done.stdout


def last_line(output: bytes) -> str:
    """Returns the last line that is not empty; of a traceback, it is the exception. Empty if there is none."""
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def until(ready: Callable[[], bool], started: Started, *, within_s: float = 20.0) -> float:
    """Returns the seconds from the start until `ready`. Raises RuntimeError at the process's end or a timeout."""
    while not ready():
        if started.poll() is not None:
            raise RuntimeError(f"the process ended before it was ready: {last_line(started.log.read_bytes())}")
        if time.perf_counter() - started.spawned_at_s > within_s:
            raise RuntimeError(f"the process is not ready after {within_s:.0f} s")
        time.sleep(_POLL_S)
    return time.perf_counter() - started.spawned_at_s


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def parent_of(stat: str) -> int:
    """Returns the parent's pid in a line of /proc/PID/stat; the name before it can contain any character."""
    return int(stat.rpartition(")")[2].split()[1])


def tree(pid: int) -> list[int]:
    """Returns the pids of the process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parent = parent_of((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # the process has ended
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for parent in found:  # the list grows during the loop
        found += children.get(parent, [])
    return found


def _cpu_ns(pid: int) -> int:
    """Returns the CPU time of all living threads, in nanoseconds."""
    tasks = (_PROC / str(pid) / "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _resident_bytes(pid: int) -> int:
    return kib_of("Rss", (_PROC / str(pid) / "smaps_rollup").read_text()) * 1024


def kib_of(name: str, text: str) -> int:
    """Returns the number in a line `name: 123 kB` of a file below /proc."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
