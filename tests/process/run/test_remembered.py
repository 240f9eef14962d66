"""Settings that were valid before."""

import os
from pathlib import Path

import pytest

from nanonets_proxy.keys.files import MAX_FILE_BYTES
from nanonets_proxy.process.run import quick, remembered
from nanonets_proxy.process.run.remembered import digest_of, is_remembered, remember

FLAGS = ["--max-wait", "3s"]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Returns variables with a home and a key, and makes an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(remembered, "_SECRETS", tmp_path / "secrets")
    return {"HOME": str(tmp_path), "NANONETS_API_KEY": "a-key", "NANONETS_PROXY_RETRIES": "1"}


def _file(environ: dict[str, str]) -> Path:
    return Path(environ["HOME"]) / ".cache/nanonets-proxy/valid-settings"


def _remember(environ: dict[str, str], flags: list[str]) -> None:
    digest = digest_of(flags, environ)
    assert digest is not None
    remember(digest, environ)


def test_remembered_settings_are_surely_valid_and_any_other_settings_are_not(environ: dict[str, str]) -> None:
    settings = Path("nanonets-proxy.toml")
    settings.write_text("max_waiting = 5\n")
    assert not quick.is_surely_valid(FLAGS, environ)
    _remember(environ, FLAGS)
    assert quick.is_surely_valid(FLAGS, environ)
    assert not quick.is_surely_valid(["--max-wait", "4s"], environ)
    assert not quick.is_surely_valid(["--max-wait 3s"], environ)
    assert not quick.is_surely_valid(FLAGS, {**environ, "NANONETS_PROXY_RETRIES": "2"})
    assert not quick.is_surely_valid(FLAGS, {**environ, "nanonets_proxy_retries": "1"})
    settings.write_text("max_waiting = 6\n")
    assert not quick.is_surely_valid(FLAGS, environ)


def test_the_key_is_checked_each_time_and_is_not_in_the_digest(environ: dict[str, str]) -> None:
    _remember(environ, FLAGS)
    assert quick.is_surely_valid(FLAGS, {**environ, "NANONETS_API_KEY": "b-key"})
    assert not quick.is_surely_valid(FLAGS, {**environ, "NANONETS_API_KEY": "a:b"})
    (key := Path("key")).write_text("a-key")
    in_file = {name: value for name, value in environ.items() if name != "NANONETS_API_KEY"}
    assert not quick.is_surely_valid(FLAGS, {**in_file, "NANONETS_API_KEY_FILE": str(key)})


def test_a_settings_file_counts_with_its_content_if_a_variable_names_it(environ: dict[str, str]) -> None:
    environ["NANONETS_PROXY_CONFIG"] = "other.toml"
    Path("other.toml").write_text("")
    _remember(environ, [])
    assert quick.is_surely_valid([], environ)
    Path("other.toml").write_text("max_wait = 3")
    assert not quick.is_surely_valid([], environ)
    Path("other.toml").unlink()
    assert not quick.is_surely_valid([], environ)


def test_settings_have_no_digest_while_a_secret_file_has_one_of_them(
    environ: dict[str, str], tmp_path: Path
) -> None:
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    assert digest_of(FLAGS, environ) is not None
    (tmp_path / "nanonets_proxy_read_only").write_text("true")
    assert digest_of(FLAGS, environ) is None


def test_settings_have_no_digest_if_the_settings_file_cannot_be_read(environ: dict[str, str]) -> None:
    """Docker makes a directory for a bind mount whose source is missing."""
    without = digest_of(FLAGS, environ)
    settings = Path("nanonets-proxy.toml")
    settings.mkdir()
    assert digest_of(FLAGS, environ) is None
    settings.rmdir()
    settings.symlink_to("missing")
    assert digest_of(FLAGS, environ) is None
    settings.unlink()
    os.mkfifo(settings)
    assert digest_of(FLAGS, environ) is None
    settings.unlink()
    assert digest_of(FLAGS, environ) == without is not None


def test_settings_have_another_digest_in_another_version(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(FLAGS, environ)
    assert digest == digest_of(FLAGS, environ) is not None
    monkeypatch.setattr(remembered, "__version__", "9")
    assert digest_of(FLAGS, environ) not in (digest, None)


@pytest.mark.parametrize("flags", [["--config", "x"], ["--config=x"]])
def test_a_file_that_a_flag_names_is_left_to_the_settings_code(flags: list[str], environ: dict[str, str]) -> None:
    assert digest_of(flags, environ) is None
    assert not quick.is_surely_valid(flags, environ)


def test_settings_are_remembered_once_and_only_for_their_user(environ: dict[str, str]) -> None:
    for digest in ("a", "b", "a"):
        remember(digest, environ)
    assert _file(environ).read_text() == "a\nb\n"
    assert (_file(environ).stat().st_mode & 0o777, _file(environ).parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [file.name for file in _file(environ).parent.iterdir()] == ["valid-settings"]


def test_a_full_file_begins_anew(environ: dict[str, str]) -> None:
    digests = [f"{number:064x}" for number in range(MAX_FILE_BYTES // 65)]
    for digest in digests:
        remember(digest, environ)
    assert is_remembered(digests[0], environ)
    assert is_remembered(digests[-1], environ)
    remember("f" * 64, environ)
    assert is_remembered("f" * 64, environ)
    assert not is_remembered(digests[0], environ)
    assert _file(environ).stat().st_size == 65


def test_a_link_in_the_place_of_the_file_is_neither_read_nor_written(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (other := tmp_path / "other").write_text("a\n")
    _file(environ).parent.mkdir(parents=True)
    _file(environ).symlink_to(other)
    remember("b", environ)
    assert other.read_text() == "a\n"
    assert not is_remembered("a", environ)


def test_a_file_that_others_may_write_counts_for_nothing(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember("a", environ)
    _file(environ).chmod(0o620)
    assert not is_remembered("a", environ)
    _file(environ).chmod(0o600)
    assert is_remembered("a", environ)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert not is_remembered("a", environ)
    remember("b", environ)
    assert _file(environ).read_text() == "a\n", "the folder belongs to another user"


def test_a_file_of_digests_that_is_none_is_neither_waited_for_nor_read(environ: dict[str, str]) -> None:
    _file(environ).parent.mkdir(parents=True)
    os.mkfifo(_file(environ), 0o600)
    assert not is_remembered("a", environ)
    _file(environ).unlink()
    _file(environ).write_text(f"{'x' * 65536}\na")
    _file(environ).chmod(0o600)
    assert not is_remembered("a", environ), "only the beginning of a large file is read"


@pytest.mark.parametrize("variables", [{}, {"HOME": "relative"}, {"XDG_CACHE_HOME": os.devnull}])
def test_without_a_cache_directory_nothing_is_remembered(variables: dict[str, str]) -> None:
    remember("a", variables)
    assert not is_remembered("a", variables)
