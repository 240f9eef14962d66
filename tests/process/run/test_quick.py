"""When a command need not wait for the settings."""

from pathlib import Path

import pytest

from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.audience import DEFAULT_UPSTREAM, Audience
from nanonets_proxy.process.run import quick, remembered

KEY = {"NANONETS_API_KEY": "a-key"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives each test an empty working directory, and a directory of secrets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remembered, "_SECRETS", tmp_path / "secrets")
    return tmp_path


def test_a_key_in_its_variable_or_file_and_no_setting_are_surely_valid(folder: Path) -> None:
    (folder / "key").write_text("a-key\n")
    assert quick.is_surely_valid([], KEY)
    assert quick.is_surely_valid([], {"NANONETS_API_KEY_FILE": "key", "NANONETS_MODEL_ID": "m"})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NANONETS_API_KEY": "a:key"},
        {"NANONETS_API_KEY": ""},
        {"NANONETS_API_KEY": make_token(bytes(TOKEN_BYTES))},
        {"NANONETS_API_KEY_FILE": "missing"},
        {**KEY, "NANONETS_API_KEY_FILE": "key"},
        {**KEY, "NANONETS_PROXY_MAX_WAIT": "1s"},
        {**KEY, "nanonets_proxy_max_wait": "1s"},
        {**KEY, "TMPDIR": "/missing"},
        {**KEY, "AIOHTTP_NO_EXTENSIONS": "1"},
    ],
)
def test_the_settings_code_decides_on_any_other_key_and_on_any_setting(
    environ: dict[str, str], folder: Path
) -> None:
    (folder / "key").write_text("a-key\n")
    assert not quick.is_surely_valid([], environ)


@pytest.mark.parametrize(
    "key",
    [
        *("a-key", " a-key\n", "a", "k" * 4096, "none", make_token(bytes(TOKEN_BYTES))[:-1]),
        *("", " ", "k" * 4097, "a key", "a\u00a0key", "a\u00e9", "a\x7f", "a\x00", "a:key"),
        *(make_token(bytes(TOKEN_BYTES)), f" {make_token(bytes(TOKEN_BYTES))}\n"),
    ],
)
def test_a_key_is_surely_valid_if_and_only_if_it_can_be_sent_to_nanonets(key: str) -> None:
    can_be_sent = True
    try:
        ApiKey.parse(key, "test").bound_to(Audience(DEFAULT_UPSTREAM))
    except KeyUnusable:
        can_be_sent = False
    assert quick.is_surely_valid([], {"NANONETS_API_KEY": key}) == can_be_sent


@pytest.mark.parametrize(
    "name", ["nanonets-proxy.toml", "secrets/nanonets_proxy_max_wait", "credentials/NANONETS_PROXY_MAX_WAIT"]
)
def test_the_settings_code_decides_if_a_file_has_settings(name: str, folder: Path) -> None:
    environ = {**KEY, "CREDENTIALS_DIRECTORY": str(folder / "credentials")}
    assert quick.is_surely_valid([], environ)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert not quick.is_surely_valid([], environ)
    assert not quick.is_surely_valid(["--sandbox"], KEY)
