"""The choice of the API key's source, and keys read from files."""

import errno
import os
from pathlib import Path

import pytest

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys.files import MAX_FILE_BYTES, os_fault
from nanonets_proxy.keys.source import (
    EnvironmentKey,
    FileKey,
    find_key_source,
    missing_key_message,
    secret_dirs,
)


def _key_file(directory: Path, text: str, name: str = "nanonets_api_key") -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


def test_the_environment_wins_over_secret_files(tmp_path: Path) -> None:
    _key_file(tmp_path, "from-file")
    source = find_key_source({"NANONETS_API_KEY": "from-env"}, api_key_file=None, dirs=[tmp_path])
    assert isinstance(source, EnvironmentKey)
    assert source.name == "env:NANONETS_API_KEY"
    assert source.read()[0].key.secrets()[-1] == b"from-env"


def test_the_named_file_wins_over_secret_files(tmp_path: Path) -> None:
    _key_file(tmp_path, "from-secret")
    named = _key_file(tmp_path, "from-named", "key.txt")
    source = find_key_source({}, api_key_file=named, dirs=[tmp_path])
    assert source == FileKey(named)
    assert source.read()[0].key.secrets()[-1] == b"from-named"


def test_the_first_secret_directory_with_the_key_wins(tmp_path: Path) -> None:
    run, credentials = tmp_path / "run", tmp_path / "credentials"
    second = _key_file(credentials, "from-credentials")
    assert find_key_source({}, api_key_file=None, dirs=[run, credentials]) == FileKey(second)
    first = _key_file(run, "from-run")
    source = find_key_source({}, api_key_file=None, dirs=[run, credentials])
    assert source == FileKey(first)
    assert source.name == f"file:{first}"


def test_the_container_secret_wins_over_the_systemd_credential() -> None:
    assert secret_dirs({}) == (Path("/run/secrets"),)
    assert secret_dirs({"CREDENTIALS_DIRECTORY": "/run/credentials/x"}) == (
        Path("/run/secrets"),
        Path("/run/credentials/x"),
    )


def test_without_a_source_the_result_is_none(tmp_path: Path) -> None:
    assert find_key_source({}, api_key_file=None, dirs=[tmp_path, tmp_path / "missing"]) is None


def test_a_key_in_the_environment_and_in_a_file_is_an_error() -> None:
    with pytest.raises(KeyUnusable) as caught:
        find_key_source({"NANONETS_API_KEY": "s3cret"}, api_key_file=Path("/k"), dirs=[])
    assert str(caught.value) == (
        "the API key of env:NANONETS_API_KEY competes with the key file /k "
        "(NANONETS_API_KEY_FILE, api_key_file): keep one"
    )


@pytest.mark.parametrize(
    "key", ["0f3a9c52-7be1-11ef-a1c3-0242ac120002", "sk-0123456789abcdef0123", "ey1.ey2.0123456789abcdef0123"]
)
def test_a_key_that_was_given_as_the_path_of_its_file_is_not_shown(key: str) -> None:
    setting = r"; the value of api_key_file \(NANONETS_API_KEY_FILE\) may be the key itself$"
    with pytest.raises(KeyUnusable, match=setting) as unreadable:
        FileKey(Path(key)).read()
    with pytest.raises(KeyUnusable, match="competes with the key file") as competing:
        find_key_source({"NANONETS_API_KEY": "s3cret"}, api_key_file=Path(key), dirs=[])
    assert key not in f"{unreadable.value} {competing.value} {FileKey(Path(key)).name}"


@pytest.mark.parametrize(
    "path", ["nanonets_api_key", "/run/secrets/0123456789abcdef0123456789", "keys-of-2026-11-30.txt"]
)
def test_a_path_of_a_missing_file_is_shown(path: str) -> None:
    with pytest.raises(KeyUnusable, match=f"file:{path} is unavailable: the file does not exist$"):
        FileKey(Path(path)).read()


def test_the_name_of_an_existing_file_is_shown_although_it_looks_like_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = _key_file(tmp_path, "s3cret", "nanonets-key-of-2026-11-30").name
    assert FileKey(Path(name)).read()[0].key.name == f"file:{name}"


def test_an_empty_variable_is_an_error() -> None:
    with pytest.raises(KeyUnusable, match=r"^the API key of env:NANONETS_API_KEY is empty$"):
        find_key_source({"NANONETS_API_KEY": ""}, api_key_file=None, dirs=[])


def test_each_read_reads_the_file_again(tmp_path: Path) -> None:
    path = _key_file(tmp_path, "first\n")
    source = FileKey(path)
    first = source.read()
    path.write_text("second\n")
    assert source.read() != first
    assert source.read()[0].key.secrets()[-1] == b"second"


def _missing(path: Path) -> None:
    del path


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _large(path: Path) -> None:
    path.write_bytes(b"k" * (MAX_FILE_BYTES + 1))


def _empty(path: Path) -> None:
    path.write_text("\n")


def _not_ascii(path: Path) -> None:
    path.write_bytes(b"secr\xe9t")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (_missing, "is unavailable: the file does not exist"),
        (_dangling, "is unavailable: the file does not exist"),
        (_directory, "is unavailable: the file is a directory"),
        (_fifo, "is unavailable: the file is not a regular file"),
        (_loop, "is unavailable: the file cannot be read: too many levels of symbolic links"),
        (_large, "is unavailable: the file is larger than 64 KiB"),
        (_empty, "is empty"),
        (_not_ascii, "has characters that are not ASCII"),
    ],
)
def test_an_invalid_key_file_is_one_sentence(make, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    make(path)
    with pytest.raises(KeyUnusable) as caught:
        FileKey(path).read()  # must not wait for the writer of a FIFO
    assert str(caught.value) == f"the API key of file:{path} {fault}"


def test_an_os_error_keeps_the_systems_words() -> None:
    assert os_fault(PermissionError(errno.EACCES, "Permission denied")) == "cannot be read: permission denied"
    assert os_fault(OSError(errno.EIO, "Input/output error")) == "cannot be read: input/output error"
    assert os_fault(OSError()) == "cannot be read: unknown fault"


def test_a_file_name_with_a_null_byte_is_one_sentence() -> None:
    with pytest.raises(KeyUnusable, match="is not a file name: it has a null byte in it"):
        FileKey(Path("a\0b")).read()


def test_a_dangling_secret_link_is_an_error(tmp_path: Path) -> None:
    _dangling(tmp_path / "nanonets_api_key")
    source = find_key_source({}, api_key_file=None, dirs=[tmp_path])
    assert source is not None
    with pytest.raises(KeyUnusable, match="does not exist"):
        source.read()


def test_the_message_for_a_missing_key_names_every_source_and_the_sandbox() -> None:
    message = missing_key_message({})
    for way in (
        "set NANONETS_API_KEY,",
        "NANONETS_API_KEY_FILE",
        "/run/secrets/nanonets_api_key",
        "$CREDENTIALS_DIRECTORY/nanonets_api_key",
        "nanonets-proxy serve --sandbox",
    ):
        assert way in message


@pytest.mark.parametrize("name", ["NANONETS_APIKEY", "nanonets_api_key", "NANONET_API_KEY"])
def test_the_message_for_a_missing_key_names_a_misspelt_variable_without_its_value(name: str) -> None:
    message = missing_key_message({name: "s3cret", "NANONETS_MODEL": "m"})
    assert f"({name} is set: did you mean NANONETS_API_KEY?)" in message
    assert "s3cret" not in message
