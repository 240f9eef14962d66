"""Follows README as a newcomer does: clones, runs `make run`, sends one request, runs `make test`.

python3 readme_commands.py REPOSITORY [PYTEST_ARGS]

`.ci/fresh-machine` runs it. Needs only Python, git and make.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ADDRESS = ("127.0.0.1", 8080)
FIRST_RUN_S = 300.0
"""The first `make run` also makes the environment and downloads its packages."""
SECOND_RUN_S = 20.0
STOP_S = 20.0


def say(text: str) -> None:
    print(f"--- {text}", flush=True)


def make_run(folder: Path, within_s: float) -> None:
    """Starts `make run`, waits for the first response, and stops it. Raises SystemExit on a failure."""
    with socket.socket() as probe:
        if probe.connect_ex(ADDRESS) == 0:
            sys.exit(f"port {ADDRESS[1]} is in use by another process: stop that process first")
    started = time.monotonic()
    with subprocess.Popen(["make", "run"], cwd=folder, start_new_session=True) as process:
        try:
            body = first_response(process, started + within_s)
        finally:
            stop(process)
    if json.loads(body) != {"workflows": []}:
        sys.exit(f"unexpected response: {body!r}")
    say(f"`make run` responded after {time.monotonic() - started:.1f} s and stopped on Ctrl+C")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Sends SIGINT to the process group, as Ctrl+C does. Raises SystemExit if the process does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit("`make run` did not stop on Ctrl+C")


def first_response(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    """Repeats one request until a response comes, and returns its body. Raises SystemExit at the deadline."""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"`make run` ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://localhost:{ADDRESS[1]}/api/v4/workflows", timeout=10) as response:
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
    make_run(folder, FIRST_RUN_S)
    make_run(folder, SECOND_RUN_S)
    make_test(folder, pytest_args)
    make_test(folder, "tests/e2e/test_installed.py")  # enough to show that a second run works too


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
