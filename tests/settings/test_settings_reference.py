"""Texts generated from the settings: reference, schema, settings in effect, help."""

import functools
import json
import re
import tomllib
from argparse import ArgumentError, ArgumentParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.settings import SandboxSettings, Settings, load_settings
from nanonets_proxy.settings.flags import SettingsFlags, named_settings
from nanonets_proxy.settings.model.groups import GROUPS
from nanonets_proxy.settings.reference import (
    effective_toml,
    json_schema,
    reference_toml,
    to_toml,
    variable_name,
)

CONFIG = Path(__file__).parents[2] / "config"
NO_CONFIG = Path("/nonexistent/nanonets-proxy.toml")


@pytest.mark.parametrize(
    ("name", "fresh"), [("nanonets-proxy.toml", reference_toml), ("nanonets-proxy.schema.json", json_schema)]
)
def test_the_generated_files_in_config_are_current(name: str, fresh) -> None:
    assert (CONFIG / name).read_text() == fresh(), f"config/{name} is stale: run `make config`"


def _uncommented(reference: str) -> str:
    return re.sub(r"^# ", "", reference, flags=re.MULTILINE)


def test_the_uncommented_reference_equals_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(_uncommented(reference_toml()))
    loaded = load_settings({}, {}, dirs=[], default_config=path)
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {str(path)}


def test_the_reference_itself_sets_nothing() -> None:
    assert tomllib.loads(reference_toml()) == {}


def test_the_reference_documents_every_setting() -> None:
    blocks, schemas = reference_toml().split("\n\n"), json.loads(json_schema())["properties"]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        block = next(block for block in blocks if f"\n# {name} = " in block)
        assert f"## Environment {variable_name(name)}, flag --{name.replace('_', '-')}." in block
        assert {"description", "default"} < set(schemas[name]), name
        assert {"type", "anyOf"} & set(schemas[name]), f"{name} has no type"


def test_the_schema_rejects_unknown_settings() -> None:
    assert json.loads(json_schema())["additionalProperties"] is False


def test_every_group_begins_at_an_existing_setting() -> None:
    assert set(GROUPS) <= set(Settings.model_fields)


def test_the_effective_settings_name_their_sources_mask_secrets_and_are_toml() -> None:
    environ = {
        "NANONETS_PROXY_EGRESS_PROXY": "http://someone:s3cret@proxy.example.com:3128",
        "NANONETS_API_KEY": "s3cret",
    }
    loaded = load_settings({"listen": "127.0.0.1:1,unix:/s"}, environ, dirs=[], default_config=NO_CONFIG)
    written = effective_toml(loaded)
    assert "s3cret" not in written
    assert "someone" not in written
    assert '\n# flag --listen\nlisten = [\n    "127.0.0.1:1",\n    "unix:/s?mode=0660",\n]\n' in written
    assert "# environment NANONETS_PROXY_EGRESS_PROXY\negress_proxy = " in written
    assert "\n# default\nmax_wait = " in written
    assert set(tomllib.loads(written)) == set(Settings.model_fields)


def test_effective_settings_without_secrets_read_back_unchanged(tmp_path: Path) -> None:
    flags = {"listen": ":1", "allow_from": "10.0.0.0/8,fd00::/8", "max_wait": "1.25s", "admin_listen": "off"}
    loaded = load_settings(flags, {}, dirs=[], default_config=NO_CONFIG)
    path = tmp_path / "again.toml"
    path.write_text(effective_toml(loaded))
    assert load_settings({}, {}, dirs=[], default_config=path).settings == loaded.settings


toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda items: st.lists(items, max_size=4),
    max_leaves=8,
)


@given(toml_values)
def test_every_value_reads_back_from_toml(value: object) -> None:
    assert tomllib.loads(f"x = {to_toml(value)}") == {"x": value}


def test_a_value_that_toml_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="no TOML for NoneType"):
        to_toml(None)


def _words() -> list[str]:
    flags = (
        "--max-wait",
        "--read-only",
        "--no-read-only",
        "--listen",
        "--no-max-wait",
        "--via=--read-only",
        "--max",
    )
    return [*flags, "--read-only=x", "-h1", "--", "--admin-listen=--listen", "x", "-1", "--x y", ""]


def _flags(names: list[str] | None) -> tuple[ArgumentParser, SettingsFlags]:
    parser = ArgumentParser("x", add_help=False, exit_on_error=False, allow_abbrev=False)
    return parser, SettingsFlags(Settings, parser, names)


_ALL_FLAGS = functools.cache(lambda: _flags(None))


def _parsed(arguments: list[str], flags: tuple[ArgumentParser, SettingsFlags]) -> object:
    try:
        parsed, unknown = flags[0].parse_known_args(arguments)
    except ArgumentError as error:
        return str(error)
    return flags[1].values(parsed), unknown


# --- flags and help ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Settings, SandboxSettings])
def test_help_shows_every_flag_with_its_description_and_no_type_names(kind) -> None:
    parser = ArgumentParser("x")
    SettingsFlags(kind, parser)
    help_text = " ".join(parser.format_help().split())
    for name, field in kind.model_fields.items():
        assert f"--{name.replace('_', '-')}" in help_text
        assert field.description in help_text
    for type_name in ("tuple", "None", "null", "TcpListener", "default factory", "JSON string"):
        assert type_name not in help_text


def test_help_and_reference_have_the_same_groups() -> None:
    parser = ArgumentParser("x")
    SettingsFlags(Settings, parser)
    help_text = parser.format_help()
    for title in GROUPS.values():
        assert f"\n{title}:\n" in help_text
        assert f"## --- {title} -" in reference_toml()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["--listen", "127.0.0.1:1", "--listen", "[::1]:2"], {"listen": "127.0.0.1:1,[::1]:2"}),
        (["--listen=127.0.0.1:1,[::1]:2"], {"listen": "127.0.0.1:1,[::1]:2"}),
        (["--no-server-timing", "--sandbox"], {"server_timing": False, "sandbox": True}),
        (["--via", ""], {"via": ""}),
        (["--via", "null"], {"via": "null"}),
        (["--scopes", "GET /a -> a", "--scopes", "GET /b -> b"], {"scopes": "GET /a -> a,GET /b -> b"}),
        (["--max-wait", "5m", "--max-wait", "6m"], {"max_wait": "6m"}),
        (["--egress-proxy", "http://u:p@h:1"], {"egress_proxy": "http://u:p@h:1"}),
    ],
)
def test_flags_return_strings_and_booleans(arguments: list[str], values: dict[str, object]) -> None:
    for names in (None, named_settings(Settings, arguments)):
        parser = ArgumentParser("x")
        flags = SettingsFlags(Settings, parser, names)
        given_values = {
            name: str(value) if not isinstance(value, bool) else value
            for name, value in flags.values(parser.parse_args(arguments)).items()
        }
        assert load_settings(given_values, {}, dirs=[], default_config=NO_CONFIG) == load_settings(
            values, {}, dirs=[], default_config=NO_CONFIG
        )


@given(st.lists(st.sampled_from(_words()), max_size=6))
def test_a_parser_with_only_the_named_flags_parses_as_one_with_all_flags(arguments: list[str]) -> None:
    """Among the examples are flags as values of others, values that look like flags, and unknown flags."""
    named = _flags(named_settings(Settings, arguments))
    assert _parsed(arguments, named) == _parsed(arguments, _ALL_FLAGS())
