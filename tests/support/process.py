"""The real command as a child process: started, watched by its log, ended by its pid."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMMAND = os.environ.get("NANONETS_PROXY_COMMAND", f"{sys.executable} -m nanonets_proxy").split()
"""What is tested: the module of this environment, or the installed program that the variable names."""

_START_S = 15.0
_END_S = 20.0


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would set the proxy, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NANONETS_")}
    return {**kept, **extra}


@dataclass
class Running:
    """A running command; `events` are its log lines so far, `stderr` what it said besides."""

    process: "subprocess.Popen[bytes]"
    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    _given: dict[str, int] = field(default_factory=dict)
    _new: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)

    def wait_for(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first event called `name` with these fields, waiting for it if need be."""
        seen = 0
        deadline = time.monotonic() + _START_S
        while True:
            for event in self.events[seen:]:
                seen += 1
                if event.get("event") == name and fields.items() <= event.items():
                    return event
            event = self._new.get(timeout=max(0.01, deadline - time.monotonic()))
            if event is None:
                raise AssertionError(f"ended without {name}: {self.stderr!r} {self.events}")
            self.events.append(event)

    def wait_for_next(self, name: str) -> dict[str, Any]:
        """The first event called `name` after the one that this gave before."""
        number = self._given[name] = self._given.get(name, 0) + 1
        deadline = time.monotonic() + _START_S
        while True:
            named = [event for event in self.events if event.get("event") == name]
            if len(named) >= number:
                return named[number - 1]
            event = self._new.get(timeout=max(0.01, deadline - time.monotonic()))
            if event is None:
                raise AssertionError(f"ended without {name} no. {number}: {self.stderr!r} {self.events}")
            self.events.append(event)

    def requests(self) -> list[dict[str, Any]]:
        """All `request` events; call it when the process has ended."""
        return [event for event in self.all_events() if event["event"] == "request"]

    def all_events(self) -> list[dict[str, Any]]:
        """Call it when the process has ended."""
        while True:
            try:
                event = self._new.get_nowait()
            except queue.Empty:
                break
            if event is not None:
                self.events.append(event)
        return self.events

    @property
    def url(self) -> str:
        return f"http://{self.wait_for('started')['listen'][0]}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.wait_for('started')['admin_listen'][0]}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(_END_S)


@contextmanager
def running(arguments: Sequence[str], env: Mapping[str, str]) -> Iterator[Running]:
    """Starts the command with JSON logs; ends it on leaving, however that happens."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child = Running(process)
    readers = [
        threading.Thread(target=_read_log, args=(child,), daemon=True),
        threading.Thread(target=_read_errors, args=(child,), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        yield child
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in readers:
            reader.join()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def _read_log(child: Running) -> None:
    assert child.process.stdout is not None
    for line in child.process.stdout:
        child.stdout += line
        if line.startswith(b"{"):
            child._new.put(json.loads(line))
    child._new.put(None)


def _read_errors(child: Running) -> None:
    assert child.process.stderr is not None
    for line in child.process.stderr:
        child.stderr += line


ANY_PORTS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


@contextmanager
def sandbox(*arguments: str, key: str = "sandbox-test-key") -> Iterator[str]:
    """The simulated API alone; gives its URL."""
    with running(["sandbox", "--listen", "127.0.0.1:0", "--api-keys", key, *arguments], environment()) as child:
        yield f"http://{child.wait_for('sandbox_started')['listen'][0]}"


@contextmanager
def proxy_to(upstream: str, *arguments: str, key: str = "sandbox-test-key", **env: str) -> Iterator[Running]:
    """The proxy in front of `upstream`, ready to serve."""
    settings = ["serve", *ANY_PORTS, "--upstream", upstream, *arguments]
    with running(settings, environment(NANONETS_API_KEY=key, **env)) as child:
        child.wait_for("started")
        yield child
