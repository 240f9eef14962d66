"""Reads the proxy's environment as root, from whom the kernel hides no process."""

from pathlib import Path

import pytest

from support.commands.process import proxy_to, sandbox

KEY = "sandbox-test-key"
pytestmark = pytest.mark.system


def test_root_sees_no_key_in_the_environment_of_the_process() -> None:
    with sandbox() as upstream, proxy_to(upstream, key=KEY, is_forked=False) as child:
        environ = Path(f"/proc/{child.process.pid}/environ").read_bytes()
    assert b"NANONETS_API_KEY=" + b"*" * len(KEY) in environ.split(b"\0")
    assert KEY.encode() not in environ
