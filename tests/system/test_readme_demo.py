"""README's demo of a rate limit, as a reader copies it, except for the ports."""

import re
import subprocess
from pathlib import Path

import pytest

from support.commands.process import ANY_PORTS, environment, running

pytestmark = pytest.mark.system

README = (Path(__file__).parents[2] / "README.md").read_text()
_START, _CALLS = re.findall(
    r"\$ (NANONETS_SANDBOX_LIMIT=.*) make run\n```\n\n```console\n(.*?)```", README, re.DOTALL
)[0]


def test_the_output_of_each_command_is_as_written() -> None:
    name, _, limit = _START.partition("=")
    with running(["serve", "--sandbox", *ANY_PORTS], environment(**{name: limit})) as proxy:
        url = proxy.url
        for written in _CALLS.removeprefix("$ ").split("\n$ "):
            command, _, output = written.partition("\n")
            assert "http://localhost:8080/" in command
            done = subprocess.run(
                ["sh", "-c", command.replace("http://localhost:8080", url)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.stdout.split(), done.stderr) == (output.split(), "")
        proxy.end()
        waited = [event for event in proxy.all_events() if event["event"] == "limit_closed"]
    assert waited, "the simulated API refused no request"
