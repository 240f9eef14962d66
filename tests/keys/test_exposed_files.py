"""Files with secrets that every user of the machine can read."""

from pathlib import Path

import pytest

from nanonets_proxy.keys import files
from nanonets_proxy.keys.files import can_be_read_by_others
from nanonets_proxy.keys.source import FileKey
from support.log_capture import captured_log
from support.proxy_harness import KEY, running_proxy
from support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in folders that every user may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o001)
    key = tmp_path / "key"
    key.write_text(KEY)
    return key


@pytest.mark.parametrize(("mode", "exposed"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_file_is_exposed_if_its_mode_lets_others_read(file: Path, mode: int, exposed: bool) -> None:
    file.chmod(mode)
    assert can_be_read_by_others(file) is exposed


def test_a_closed_folder_protects_its_files(file: Path) -> None:
    file.chmod(0o644)
    file.parent.chmod(0o700)
    assert not can_be_read_by_others(file)
    assert not can_be_read_by_others(file.parent / "missing")


def test_secrets_of_container_engines_are_not_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = file.parent / "..2026_11_28"
    version.mkdir()
    version.chmod(0o755)
    (version / "key").write_text(KEY)
    (file.parent / "link").symlink_to(version / "key")
    assert not can_be_read_by_others(file.parent / "link")
    file.chmod(0o644)
    monkeypatch.setattr(files, "_SECRET_DIR", file.parent)
    assert not can_be_read_by_others(file)


@pytest.fixture
def exposed_file(file: Path) -> Path:
    file.chmod(0o644)
    return file


async def test_an_exposed_key_file_is_an_alert_at_start(exposed_file: Path) -> None:
    with captured_log() as log:
        async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, FileKey(exposed_file)):
            pass
        (event,) = log.events("secret_file_exposed")
    assert (event["level"], event["path"]) == ("warning", str(exposed_file))
    assert "chmod 600" in event["advice"]
