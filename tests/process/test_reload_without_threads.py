"""A reload at the limit of the container's processes, `pids.max`: the settings stay, systemd hears of its end."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.app.reloading import SettingsUnusable
from nanonets_proxy.process.inheritance import Inheritance
from nanonets_proxy.process.lifecycle import Lifecycle, Start
from nanonets_proxy.process.settings_rereader import SettingsRereader
from support.proxy_harness import serve_config


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
async def test_settings_are_unusable_while_no_thread_can_start(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise error

    config, rereader = serve_config(), SettingsRereader(["serve"], {})
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(SettingsUnusable, match="no thread could be started to read them"):
        await rereader(config)


class FailingProgram:
    """A program whose reload fails."""

    async def reload(self) -> Any:
        raise ZeroDivisionError


async def test_systemd_hears_of_the_end_of_a_reload_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.environ["NOTIFY_SOCKET"])
        program: Any = FailingProgram()
        shutdown: Any = None
        lifecycle = Lifecycle(program, shutdown, Start(Inheritance(), {}))
        with pytest.raises(ZeroDivisionError):
            await lifecycle._reload()
        manager.settimeout(0)
        assert manager.recv(200).startswith(b"RELOADING=1\n")
        assert manager.recv(200) == b"READY=1"
