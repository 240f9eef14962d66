"""Files that are loaded again when they change."""

import errno
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nanonets_proxy.keys import change_watch
from nanonets_proxy.keys.reloaded_file import ReloadedFile
from nanonets_proxy.telemetry.alerts import Alerts
from support.eventually import until
from support.log_capture import captured_log


async def test_a_change_before_the_watch_starts_is_loaded(tmp_path: Path) -> None:
    """Such as the removal of a caller between the first reading of the tokens and the start of the listeners."""
    path = tmp_path / "tokens"
    path.write_text("one")
    loaded: list[str] = []
    file = ReloadedFile(path, "tls_cert", lambda: loaded.append(path.read_text()), Alerts(CollectorRegistry()))
    path.write_text("another")
    file.start()
    await until(lambda: loaded == ["another"])
    await file.stop()


async def test_a_file_that_failed_for_a_moment_is_read_again_although_it_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by EIO of a disk, or ESTALE of a network share."""
    monkeypatch.setattr(change_watch, "_RETRY_S", 0.01)
    path = tmp_path / "tokens"
    path.write_text("one")
    faults = [OSError(errno.EIO, "Input/output error")] * 3
    readings: list[bool] = []

    def load() -> None:
        readings.append(not faults)
        if faults:
            raise faults.pop()

    with captured_log() as log:
        alerts = Alerts(CollectorRegistry())
        file = ReloadedFile(path, "caller_tokens_file", load, alerts)
        path.write_text("another")
        file.start()
        await until(lambda: len(readings) == 1)
        (alert,) = alerts.to_json()
        await until(lambda: readings == [False, False, False, True])
        await file.stop()
    assert (alert["setting"], alert["path"]) == ("caller_tokens_file", str(path))
    assert alerts.to_json() == []
    (event,) = log.events("file_not_reloaded")
    assert "Input/output error" in event["reason"]
    assert len(log.events("file_reloaded")) == 1


async def test_the_alert_about_a_file_ends_when_no_setting_names_the_file_any_more(tmp_path: Path) -> None:
    def load() -> None:
        raise ValueError("is empty")

    alerts = Alerts(CollectorRegistry())
    file = ReloadedFile(tmp_path / "tokens", "caller_tokens_file", load, alerts)
    assert file.reload() is not None
    assert alerts.to_json()
    file.cancel()
    assert not alerts.to_json()
