"""The program as process 1 of a container, or below it: SIGTERM at several instants of its start, and a restart."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from support.commands.process import ANY_PORTS, environment, running
from support.commands.restarts import restart

pytestmark = pytest.mark.system

INSTANTS_S = (0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)


@pytest.mark.parametrize("instant_s", INSTANTS_S)
def test_sigterm_to_process_1_of_a_container_never_hangs(instant_s: float) -> None:
    container = ["unshare", "--pid", "--fork", "--kill-child", "env", "--block-signal=TERM,INT"]
    with running(["serve", "--sandbox", *ANY_PORTS], environment(), within=container) as proxy:
        children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children")
        # `env` has run once the child's command line is the program's.
        while not (pids := children.read_text().split()) or _is_before_env(int(pids[0])):
            time.sleep(0.001)
        time.sleep(instant_s)
        os.kill(int(pids[0]), signal.SIGTERM)
        assert proxy.wait() in (0, 128 + signal.SIGTERM)


@pytest.mark.parametrize("init", [["catatonit", "--"], ["sh", "-c", '"$@"; exit $?', "sh"]])
def test_below_the_init_of_a_container_the_program_refuses_to_restart(init: list[str]) -> None:
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *init]
    arguments = ["serve", "--upstream", "http://127.0.0.1:9", *ANY_PORTS]
    with running(arguments, environment(NANONETS_API_KEY="8f14e45fceea167a"), within=container) as proxy:
        status, document = restart(proxy)
        assert (status, document["reason"]) == (
            503,
            "the container may end with this process; start a new container",
        )
        assert proxy.process.poll() is None
        proxy.process.kill()  # `unshare` ignores SIGTERM, and its namespace ends with it


def test_a_process_that_a_restart_started_can_restart_below_a_shell_that_only_adopted_it() -> None:
    other = "import subprocess, sys, time; subprocess.run(sys.argv[1:]); time.sleep(3600)"
    shell = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", other]
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *shell]
    arguments = ["serve", "--upstream", "http://127.0.0.1:9", *ANY_PORTS]
    with running(arguments, environment(NANONETS_API_KEY="8f14e45fceea167a"), within=container) as proxy:
        assert [restart(proxy)[0] for _ in range(2)] == [200, 200]
        proxy.process.kill()


def _is_before_env(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    return not command or command.endswith((b"unshare", b"env"))  # while a program is replaced, it has no name
