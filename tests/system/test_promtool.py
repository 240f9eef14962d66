"""Prometheus' own checker reads the metrics."""

import asyncio
import subprocess

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream
from system.podman import STATE

pytestmark = pytest.mark.system

PROMTOOL = STATE / "promtool"
_HAS_ADVICE = 3  # on a name or a help text; the client library's own metrics may get some


async def test_promtool_finds_no_fault_in_our_metrics() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, read_only=True) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/api/v4/workflows"))
        await (await upstream.next_request()).respond(OK)
        await caller.response()
        await caller.post(b"/api/v4/workflows", b"{}")
        async with await RawCaller.connect(proxy.admin_address) as admin:
            text = (await admin.get(b"/metrics")).body
    code, output = await asyncio.to_thread(_check, text)
    assert code in (0, _HAS_ADVICE), output
    assert [line for line in output.splitlines() if line.startswith("nanonets")] == []


def test_promtool_finds_a_bad_name_and_broken_text() -> None:
    code, output = _check(b"# HELP nanonets_bad Counts.\n# TYPE nanonets_bad counter\nnanonets_bad 1\n")
    assert code == _HAS_ADVICE
    assert output.startswith("nanonets_bad ")
    code, _ = _check(b"nanonets_bad{ 1\n")
    assert code not in (0, _HAS_ADVICE)


def _check(text: bytes) -> tuple[int, str]:
    """Returns the exit code of promtool, and what it prints."""
    assert PROMTOOL.exists(), "promtool is missing: run `make test-system`"
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()
