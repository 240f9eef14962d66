"""Runs the real command as a child process, and follows its log."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference.documented_events import undocumented
from support.commands.forked_command import ForkedCommand

COMMAND = os.environ.get("NANONETS_PROXY_COMMAND", f"{sys.executable} -m nanonets_proxy").split()
"""The command under test: this environment's module, or the program in NANONETS_PROXY_COMMAND."""

_IS_OTHER_PROGRAM = "NANONETS_PROXY_COMMAND" in os.environ
END_S = 60.0
"""Within this time a process ends. Only a failure takes as long; a busy machine needs more than a few seconds."""
PLUGIN_ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "nanonets_proxy.pytest_plugin.plugin"}
"""Variables with which pytest loads no other plugin: the imports of the others take two seconds of CPU time."""
_EVENT_S = 180.0
"""Within this time an event comes. At twenty busy processes to two processors, some starts took over a minute."""


def environment(**extra: str) -> dict[str, str]:
    """Returns this process's environment with `extra`, without the proxy's variables and the user's cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NANONETS_")}
    return {**kept, "XDG_CACHE_HOME": os.devnull, **extra}


@dataclass
class Running:
    """A running command. `events` are its log events so far, `stdout` and `stderr` its raw output."""

    process: "subprocess.Popen[bytes] | ForkedCommand"
    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    _readers: list[threading.Thread] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)
    """For each name, the number of events up to the last one that `wait_for_next` returned."""
    _arrived: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)

    def wait_for(self, name: str, **fields: Any) -> dict[str, Any]:
        """Returns the first event called `name` with these fields, and waits for it if necessary."""
        return self.events[self._index_of(name, fields, 0)]

    def wait_for_next(self, name: str) -> dict[str, Any]:
        """Returns the next event called `name` after the one returned by the previous call."""
        at = self._index_of(name, {}, self._seen.get(name, 0))
        self._seen[name] = at + 1
        return self.events[at]

    def _index_of(self, name: str, fields: Mapping[str, Any], at: int) -> int:
        """Waits for an event called `name` with these fields. The events before `at` do not count."""
        deadline_s = time.monotonic() + _EVENT_S
        while True:
            while at < len(self.events):
                event = self.events[at]
                if event.get("event") == name and fields.items() <= event.items():
                    return at
                at += 1
            self._await_event(name, deadline_s)

    def _await_event(self, wanted: str, deadline_s: float) -> None:
        """Waits for one more event. Raises AssertionError if the process ends first, or at the deadline."""
        try:
            event = self._arrived.get(timeout=max(0.01, deadline_s - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"no {wanted} in time: {self.stderr!r} {self.events}") from None
        if event is None:
            raise AssertionError(f"ended without {wanted}: {self.stderr!r} {self.events}")
        self.events.append(event)

    def requests(self) -> list[dict[str, Any]]:
        """Returns all `request` events. Call it after `end` or `wait`."""
        return [event for event in self.all_events() if event["event"] == "request"]

    def all_events(self) -> list[dict[str, Any]]:
        """Returns all events. Call it after `end` or `wait`."""
        while True:
            try:
                event = self._arrived.get_nowait()
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
        """Sends a signal, waits for the end of the process and of its output, and returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end of the process and of its output, and returns the exit code.

        A process that others have replaced shares its output with them: use `process.wait` for its end alone.
        """
        code = self.process.wait(END_S)
        for reader in self._readers:
            reader.join(END_S)
            assert not reader.is_alive(), "another process keeps the output open"
        return code


@contextmanager
def running(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    command: Sequence[str] = COMMAND,
    within: Sequence[str] = (),
    folder: Path | None = None,
    is_forked: bool = False,
) -> Iterator[Running]:
    """Runs a command during the block, and ends it afterwards in any case.

    `within` is a command such as `ip netns exec` that replaces itself by the proxy. `is_forked`: the start is not
    under test, and may save its cost (`forked_command.py`).

    Raises AssertionError at the end if docs/reference/log-events.md does not list each event of the process.
    """
    process: subprocess.Popen[bytes] | ForkedCommand
    if is_forked and not _IS_OTHER_PROGRAM:
        process = ForkedCommand(arguments, env, folder or Path.cwd())
    else:
        process = subprocess.Popen(
            [*within, *command, *arguments],
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    child = Running(process)
    for read in _read_log, _read_errors:
        reader = threading.Thread(target=read, args=(child,), daemon=True)
        child._readers.append(reader)
        reader.start()
    try:
        yield child
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in child._readers:
            reader.join()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
    unknown = [(event["event"], names) for event in child.all_events() if (names := undocumented(event))]
    assert not unknown, f"docs/reference/log-events.md does not list {unknown}"


def completed(arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the command in a fork until it ends."""
    process = ForkedCommand(arguments, env, folder)
    with process.stdout, process.stderr, ThreadPoolExecutor(2) as pool:
        stdout, stderr = pool.map(lambda stream: stream.read().decode(), (process.stdout, process.stderr))
    return subprocess.CompletedProcess(list(arguments), process.wait(END_S), stdout, stderr)


def finished(command: Sequence[str], folder: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Runs any command line, such as one that starts the command from a shell, until it ends."""
    return subprocess.run(
        command, env=environment(**extra), cwd=folder, capture_output=True, text=True, timeout=END_S, check=False
    )


def _read_log(child: Running) -> None:
    assert child.process.stdout is not None
    for line in child.process.stdout:
        child.stdout += line
        if line.startswith(b"{"):
            child._arrived.put(json.loads(line))
    child._arrived.put(None)


def _read_errors(child: Running) -> None:
    assert child.process.stderr is not None
    for line in child.process.stderr:
        child.stderr += line


ANY_PORTS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")


@contextmanager
def sandbox(*arguments: str, key: str = "sandbox-test-key") -> Iterator[str]:
    """Runs the sandbox alone, and yields its URL."""
    command = ["sandbox", "--listen", "127.0.0.1:0", "--api-keys", key, *arguments]
    with running(command, environment(), is_forked=True) as child:
        yield f"http://{child.wait_for('sandbox_started')['listen'][0]}"


@contextmanager
def proxy_to(
    upstream: str, *arguments: str, key: str = "sandbox-test-key", is_forked: bool = True, **env: str
) -> Iterator[Running]:
    """Runs the proxy in front of `upstream`, and yields it once it serves."""
    settings = ["serve", *ANY_PORTS, "--upstream", upstream, *arguments]
    with running(settings, environment(NANONETS_API_KEY=key, **env), is_forked=is_forked) as child:
        child.wait_for("started")
        yield child
