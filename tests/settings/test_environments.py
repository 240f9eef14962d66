"""Several named environments in one TOML file."""

import json
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy.core.keys.api_key import KeyUnusable
from nanonets_proxy.keys.source import EnvironmentKey, FileKey, NoKeyGiven
from nanonets_proxy.settings import LoadedSettings, Settings, SettingsError, load_settings
from nanonets_proxy.settings.key_source import key_source_config
from nanonets_proxy.settings.reference import effective_toml, json_schema

TWO = """
max_wait = "7s"
log_level = "warning"

[environments.prod]
listen = "127.0.0.1:1001"

[environments.staging]
listen = "127.0.0.1:1002"
max_wait = "9s"
api_key_file = "/run/staging"
upstream = "https://staging.example.com"
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str, **environ: str) -> LoadedSettings[Settings]:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return load_settings({}, environ, dirs=[], default_config=path)

    return load


def test_the_settings_at_the_top_are_the_defaults_of_each_environment(load: Any) -> None:
    loaded = load(TWO)
    prod, staging = (loaded.environments[name].settings for name in ("prod", "staging"))
    assert (prod.max_wait, staging.max_wait) == (7.0, 9.0)
    assert str(prod.upstream) == "https://app.nanonets.com"
    assert str(staging.upstream) == "https://staging.example.com"
    assert loaded.settings.log_level == "warning"
    assert loaded.environments["staging"].sources["max_wait"].endswith("settings.toml, environments.staging")


def test_without_a_table_there_is_no_named_environment(load: Any) -> None:
    assert load("max_wait = 7").environments == {}


def test_a_table_wins_over_the_settings_of_the_process(load: Any) -> None:
    loaded = load(TWO, NANONETS_PROXY_MAX_WAIT="1s")
    assert [own.settings.max_wait for own in loaded.environments.values()] == [1.0, 9.0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[environments.a]\nlisten = 'nowhere'", "environments.a.listen: "),
        ("[environments.a]\nkey_file = '/k'", "environments.a.key_file: unknown setting"),
        ("[environments.a]\nkey_file = '/k'", "did you mean api_key_file?"),
        ("[environments.a]\nlog_level = 'info'", "environments.a.log_level: applies to the whole process"),
        ("[environments.a]\napi_key = 'secret'", "environments.a.api_key: a settings file cannot hold the key"),
        ("[environments.File]", "environments.File: is not a valid name for an environment"),
        ("[environments.file]", "environments.file: is not a valid name for an environment"),
        ("environments = 1", "environments: must hold tables"),
        ("[environments]\na = 1", "environments: must hold tables"),
        (
            "[environments.a]\nlisten = ':80'",
            "environments.a.listen: other machines can reach :80",
        ),
        (
            "[environments.a]\n[environments.b]",
            "environments.b.listen: localhost:8080 is already used by environments.a.listen (default)",
        ),
        (
            "[environments.a]\nlisten = '127.0.0.1:8081'",
            "admin_listen: localhost:8081 is already used by environments.a.listen",
        ),
        (
            "[environments.a]\njobs = 'jobs'\n[environments.b]\nlisten = '127.0.0.1:2'\njobs = './x/../jobs'",
            "environments.b.jobs: x/../jobs is already used by environments.a.jobs",
        ),
        (
            "state_file = '/s'\n[environments.a]\nlisten = '127.0.0.1:1'\n[environments.b]\nlisten = '127.0.0.1:2'",
            "environments.b.state_file: /s is already used by environments.a.state_file",
        ),
        ("sandbox = true\n[environments.a]", "sandbox: cannot be combined with environments"),
        (
            "[environments.a]\nbody_memory = '1GiB'",
            "environments.a.body_memory: is larger than environments.a.body_memory_total (default) allows",
        ),
    ],
)
def test_an_error_names_the_environment(load: Any, text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_each_environment_finds_its_own_key(load: Any, tmp_path: Path) -> None:
    loaded = load(TWO)
    prod, staging = (loaded.environments[name].settings for name in ("prod", "staging"))

    def find(settings: Settings, name: str, **environ: str) -> Any:
        return key_source_config(settings, environ, name).find(environ, dirs=[tmp_path])

    found = find(prod, "prod", NANONETS_API_KEY_PROD="prod-key", NANONETS_API_KEY="not-mine")
    assert isinstance(found, EnvironmentKey)
    assert found.name == "env:NANONETS_API_KEY_PROD"
    assert find(staging, "staging") == FileKey(Path("/run/staging"))
    with pytest.raises(KeyUnusable, match="env:NANONETS_API_KEY_STAGING competes with"):
        find(staging, "staging", NANONETS_API_KEY_STAGING="x")
    with pytest.raises(NoKeyGiven, match=r"^environments\.prod: no API key was given: set api_key_file"):
        find(prod, "prod", NANONETS_API_KEY="not-mine")
    (tmp_path / "nanonets_api_key_prod").write_text("k")
    assert find(prod, "prod") == FileKey(tmp_path / "nanonets_api_key_prod")


def test_two_stores_are_an_error() -> None:
    with pytest.raises(KeyUnusable) as caught:
        key_source_config(Settings(api_key_command="cat /k", aws_secret="name"), {}).find({}, dirs=[])
    assert str(caught.value) == "the API key of command:cat competes with aws:name: keep one"


def test_the_effective_settings_show_each_environment_and_read_back(load: Any) -> None:
    loaded = load(TWO)
    again = load(effective_toml(loaded))
    assert again.settings == loaded.settings
    assert {name: own.settings for name, own in again.environments.items()} == {
        name: own.settings for name, own in loaded.environments.items()
    }


def test_the_schema_covers_the_settings_of_an_environment() -> None:
    table = json.loads(json_schema())["properties"]["environments"]["additionalProperties"]
    assert "listen" in table["properties"]
    assert "log_level" not in table["properties"]
    assert table["additionalProperties"] is False
