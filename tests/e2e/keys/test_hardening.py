"""The running process hides its key from other processes of the machine."""

import json
import resource
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.commands.proc import shown_to_its_user
from support.commands.process import completed, environment, proxy_to, running, sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs proc(5) and prctl(2)")


def test_forgotten_variables_are_overwritten_in_proc_environ() -> None:
    forget = (
        "import sys; from nanonets_proxy.process.hardening import forget_variables\n"
        "forget_variables(['SECRET']); print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", forget],
        env=environment(SECRET="a-secret-value", KEPT="a-plain-value"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        environ = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
        child.communicate()
    assert b"SECRET=" + b"*" * len("a-secret-value") in environ
    assert b"KEPT=a-plain-value" in environ


def test_the_process_leaves_no_core_dump_and_hides_its_memory_from_its_user() -> None:
    with sandbox() as upstream, proxy_to(upstream, OPEN="an-open-value", is_forked=False) as child:
        limits = Path(f"/proc/{child.process.pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core")]
        assert core.split()[4:6] == ["0", "0"]
        shown = shown_to_its_user(child.process.pid)
    assert b"nanonets_proxy" in shown, "every user may read the command line"
    assert b"an-open-value" not in shown, "the environment is closed"
    assert b".so" not in shown, "the memory map is closed"


def test_memory_is_locked_if_the_system_allows_it() -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    capable = bool(int(_field("self", "CapEff"), 16) >> 14 & 1)
    with sandbox() as upstream, proxy_to(upstream, is_forked=False) as child:
        locked_kib = int(_field(str(child.process.pid), "VmLck").split()[0])
        assert (locked_kib > 0) == (unlimited or capable)


def _field(process: str, name: str) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(name))


def test_a_token_made_by_the_command_authenticates_its_caller(tmp_path: Path) -> None:
    done = completed(["token", "billing"], environment(), tmp_path)
    token, line = done.stdout.splitlines()
    assert token not in line
    with sandbox() as upstream, proxy_to(upstream, "--caller-tokens", line) as child:
        request = urllib.request.Request(f"{child.url}/api/v4/workflows")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as response:
            assert json.load(response) == {"workflows": []}
        child.end()
        assert [event["caller"] for event in child.requests()][1:] == ["billing"]
        assert token.encode() not in child.stdout + child.stderr


@pytest.mark.parametrize("name", [[], ["1"], ["a", "b"]])
def test_the_token_command_needs_exactly_one_name(name: list[str]) -> None:
    with running(["token", *name], environment(), is_forked=True) as child:
        assert child.wait() == 2
