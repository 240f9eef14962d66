"""Follows README as a newcomer does: clones, runs `make run`, sends one request, copies the demo, runs `make test`.

python3 readme_commands.py REPOSITORY [PYTEST_ARGS]

`.ci/fresh-machine` runs it. Needs only Python, git, make and curl.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ADDRESS = ("127.0.0.1", 8080)
FIRST_RUN_S = 300.0
"""The first `make run` also makes the environment and downloads its packages."""
SECOND_RUN_S = 20.0
STOP_S = 20.0
DEMO_S = 60.0


def say(text: str) -> None:
    print(f"--- {text}", flush=True)


@contextlib.contextmanager
def make_run(folder: Path, within_s: float, target: str, **env: str) -> Iterator[bytes]:
    """Runs `make run` during the block, from the first response to `target` on, and yields that response's body.

    Raises SystemExit on a failure.
    """
    with socket.socket() as probe:
        if probe.connect_ex(ADDRESS) == 0:
            sys.exit(f"port {ADDRESS[1]} is in use by another process: stop that process first")
    started = time.monotonic()
    command = ["make", "run"]
    with subprocess.Popen(command, cwd=folder, env={**os.environ, **env}, start_new_session=True) as process:
        try:
            body = first_response(process, target, started + within_s)
            say(f"`make run` responded after {time.monotonic() - started:.1f} s")
            yield body
        finally:
            stop(process)
    say("`make run` stopped on Ctrl+C")


def demo(folder: Path) -> None:
    """Copies README's demo of a rate limit. Raises SystemExit if the output differs from README's."""
    readme = (folder / "README.md").read_text()
    ((setting, commands),) = re.findall(
        r"\$ (NANONETS_SANDBOX_LIMIT=\S+) make run\n```\n\n```console\n(.*?)```", readme, re.DOTALL
    )
    name, _, limit = setting.partition("=")
    with make_run(folder, SECOND_RUN_S, "/sandbox/stats", **{name: limit}):  # counts no request
        for written in commands.removeprefix("$ ").split("\n$ "):
            command, _, output = written.partition("\n")
            done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, timeout=DEMO_S, check=True)
            if done.stdout.decode().split() != output.split():
                sys.exit(f"`{command}` printed {done.stdout!r}")
    say("the demo printed what README says")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Sends SIGINT to the process group, as Ctrl+C does. Raises SystemExit if the process does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit("`make run` did not stop on Ctrl+C")


def first_response(process: "subprocess.Popen[bytes]", target: str, deadline: float) -> bytes:
    """Repeats one request until a response comes, and returns its body. Raises SystemExit at the deadline."""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"`make run` ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://localhost:{ADDRESS[1]}{target}", timeout=10) as response:
                return bytes(response.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    sys.exit("`make run` sent no response in time")


def make_test(folder: Path, pytest_args: str) -> None:
    """Runs `make test`. Raises CalledProcessError if a test fails."""
    started = time.monotonic()
    arguments = [f"PYTEST_ARGS={pytest_args}"] if pytest_args else []
    subprocess.run(["make", "test", *arguments], cwd=folder, check=True)
    say(f"`make test {' '.join(arguments)}` passed after {time.monotonic() - started:.0f} s")


def main(repository: str, pytest_args: str) -> None:
    folder = Path.home() / "nanonets-proxy"
    say(f"{sys.version.split()[0]}, user {os.getuid()}, {len(os.sched_getaffinity(0))} processors")
    quiet = ["-c", "advice.detachedHead=false"]
    subprocess.run(["git", *quiet, "clone", "--quiet", repository, str(folder)], check=True)
    with make_run(folder, FIRST_RUN_S, "/api/v4/workflows") as body:
        if json.loads(body) != {"workflows": []}:
            sys.exit(f"unexpected response: {body!r}")
    demo(folder)
    make_test(folder, pytest_args)
    make_test(folder, "tests/e2e/test_installed.py")  # enough to show that a second run works too


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
