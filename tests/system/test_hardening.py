"""Reads the proxy's environment as root, from whom the kernel hides no process."""

import os
import signal
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


def test_root_sees_no_secret_in_the_environment_of_the_process_that_reads_the_settings_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "settings.toml"
    file.touch()
    with (
        sandbox() as upstream,
        proxy_to(upstream, "--config", str(file), key=KEY, is_forked=False, VAULT_TOKEN="vault-token") as proxy,
    ):
        file.unlink()
        os.mkfifo(file)
        proxy.process.send_signal(signal.SIGHUP)
        with file.open("w"):  # returns when the process opens the file
            threads = Path(f"/proc/{proxy.process.pid}/task").glob("*/children")
            (reader,) = "".join(children.read_text() for children in threads).split()
            command = Path(f"/proc/{reader}/cmdline").read_bytes()
            environ = Path(f"/proc/{reader}/environ").read_bytes()
        proxy.wait_for("reloaded")
    assert b"nanonets" in command
    assert b"vault-token" not in environ
    assert KEY.encode() not in environ
