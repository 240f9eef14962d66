"""Writes the settings as documents: the reference TOML, the TOML of the settings in effect, the JSON schema."""

import json
import textwrap
from collections.abc import Collection, Iterator
from typing import Any

from nanonets_proxy.settings.loaded import LoadedSettings
from nanonets_proxy.settings.model.groups import GROUPS, NEEDS_RESTART, PROCESS_WIDE
from nanonets_proxy.settings.model.proxy import Settings
from nanonets_proxy.settings.sources import ENVIRONMENTS, flag_name

_WIDTH = 96

_HEADER = """\
## nanonets-proxy: all settings with their defaults. `nanonets-proxy config --reference` writes this file.
##
## Copy the lines that you change into ./nanonets-proxy.toml, or name another file with --config or
## NANONETS_PROXY_CONFIG. Flags win over environment variables, then secret files (in /run/secrets or
## $CREDENTIALS_DIRECTORY, with names like nanonets_proxy_listen), then this file, then the defaults.
##
## A duration is a number of seconds or a string such as 500ms, 30s, 5m, 1h. A size is a number of bytes
## or a string such as 512KiB, 64MiB, 1GB. A list is an array in this file and a string with commas in
## other sources; list flags can also be repeated.
##
## SIGHUP and `nanonets-proxy reload` make a running proxy read this file again. For the settings that only
## a restart changes, `nanonets-proxy restart` replaces the process without a lost call.
##
## This file cannot hold the API key. Set NANONETS_API_KEY, or set NANONETS_API_KEY_FILE to the path of a
## file, or put the key into /run/secrets/nanonets_api_key or $CREDENTIALS_DIRECTORY/nanonets_api_key.
"""

_ENVIRONMENTS = """

## --- Several environments -----------------------------------------------------------------------

## One process can serve several environments, each with its own key, rate limits, connections and
## listeners. The settings above are the defaults of each environment. These settings apply to the
## whole process:
{shared}.
## The key of an environment may also be in a variable such as NANONETS_API_KEY_STAGING, or in a secret
## file such as nanonets_api_key_staging.
##
## [environments.staging]
## listen = "127.0.0.1:8082"
## api_key_file = "/run/secrets/staging_key"
## upstream = "https://app.nanonets.com"
"""


def to_toml(value: Any) -> str:
    """Returns `value` as TOML. A list of several items takes one line per item."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            # A JSON string is a TOML basic string, except for DEL, which only TOML requires to be escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case [] | [_]:
            return f"[{', '.join(map(to_toml, value))}]"
        case [*items]:
            return "".join(("[\n", *(f"    {to_toml(item)},\n" for item in items), "]"))
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def json_values(settings: Settings) -> dict[str, Any]:
    """Returns the settings as JSON values. Secrets are masked; all other values read back unchanged."""
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    return dumped


def variable_name(name: str) -> str:
    """Returns the environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def _description(name: str) -> list[str]:
    return textwrap.wrap(Settings.model_fields[name].description or "", _WIDTH, break_on_hyphens=False)


def _reference_lines() -> Iterator[str]:
    for name, value in json_values(Settings()).items():
        if name in GROUPS:
            yield f"\n\n## --- {GROUPS[name]} ".ljust(_WIDTH + 5, "-")
        yield ""
        yield from (f"## {line}" for line in _description(name))
        restart = " Only a restart changes it." if name in NEEDS_RESTART else ""
        yield f"## Environment {variable_name(name)}, flag {flag_name(name)}.{restart}"
        yield from (f"# {line}" for line in f"{name} = {to_toml(value)}".splitlines())


def reference_toml() -> str:
    """Returns all settings with their descriptions. Settings start with `# `, other lines with `## `."""
    shared = textwrap.fill(
        ", ".join(sorted(PROCESS_WIDE)), _WIDTH + 5, initial_indent="## ", subsequent_indent="## "
    )
    return _HEADER + "\n".join(_reference_lines()) + "\n" + _ENVIRONMENTS.format(shared=shared)


def effective_toml(loaded: LoadedSettings[Settings], *, only_changed: bool = False) -> str:
    """Returns the settings in effect. A comment before each setting names its source.

    `only_changed` omits each setting that has the value of its default.
    """
    defaults = json_values(Settings()) if only_changed else {}

    def lines_of(own: LoadedSettings[Settings], omitted: Collection[str] = ()) -> Iterator[str]:
        for name, value in json_values(own.settings).items():
            if name not in omitted and not (only_changed and value == defaults[name]):
                yield from ("", f"# {own.sources[name]}", f"{name} = {to_toml(value)}")

    kind = "settings that differ from their defaults" if only_changed else "settings in effect"
    lines = [f"# The {kind}. Secrets are masked; a comment names the source of each setting.", *lines_of(loaded)]
    for environment, own in loaded.environments.items():
        lines += ["", "", f"[{ENVIRONMENTS}.{environment}]", *lines_of(own, PROCESS_WIDE)]
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """Returns the JSON schema of the TOML file."""
    schema = Settings.model_json_schema()
    for name, value in json_values(Settings()).items():
        schema["properties"][name]["default"] = value
    schema["properties"][ENVIRONMENTS] = {
        "description": "Named environments. The settings at the top of the file are their defaults.",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {"$ref": f"#/properties/{name}"} for name in Settings.model_fields if name not in PROCESS_WIDE
            },
        },
    }
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
