"""Files that are loaded again when they change."""

from pathlib import Path

from nanonets_proxy.keys.reloaded_file import ReloadedFile
from support.eventually import until


async def test_a_change_before_the_watch_starts_is_loaded(tmp_path: Path) -> None:
    """Such as the removal of a caller between the first reading of the tokens and the start of the listeners."""
    path = tmp_path / "tokens"
    path.write_text("one")
    loaded: list[str] = []
    file = ReloadedFile(path, lambda: loaded.append(path.read_text()))
    path.write_text("another")
    file.start()
    await until(lambda: loaded == ["another"])
    await file.stop()
