"""What is written from the one definition: the reference TOML, the effective TOML, the JSON schema."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from nanonets_proxy.settings.loaded import Loaded
from nanonets_proxy.settings.model.proxy import GROUPS, PROCESS_WIDE, Settings
from nanonets_proxy.settings.sources import ENVIRONMENTS, flag_name

_WIDTH = 96

_HEADER = """\
## nanonets-proxy: every setting with its default. Written by `nanonets-proxy config --reference`.
##
## Copy the lines that you change into ./nanonets-proxy.toml, or name another file by --config or
## NANONETS_PROXY_CONFIG. A flag wins over the environment, then secret files (/run/secrets and
## $CREDENTIALS_DIRECTORY, named like nanonets_proxy_listen), then this file, then the default.
##
## Durations are seconds or texts such as 500ms, 30s, 5m, 1h; sizes are bytes or texts such as
## 512KiB, 64MiB, 1GB. A list is an array here, and a text with commas elsewhere; flags repeat.
##
## The API key never stands here. It comes from NANONETS_API_KEY, the file that NANONETS_API_KEY_FILE
## names, /run/secrets/nanonets_api_key, or $CREDENTIALS_DIRECTORY/nanonets_api_key.
"""

_ENVIRONMENTS = """

## --- Several environments -------------------------------------------------------------------------

## Each with a key, a gate, a pool and listeners of its own. The settings above are the defaults of each, but
## for these of the whole process: admin_listen, drain_timeout, log_format, log_level, sandbox. The key may
## also be in NANONETS_API_KEY_STAGING, or in a secret file nanonets_api_key_staging.
##
## [environments.staging]
## listen = "127.0.0.1:8082"
## api_key_file = "/run/secrets/staging_key"
## upstream = "https://app.nanonets.com"
"""


def to_toml(value: Any) -> str:
    """A TOML value. Lists of more than one item take a line for each."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            # A JSON text is a TOML basic string, but for DEL, which only TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case [] | [_]:
            return f"[{', '.join(map(to_toml, value))}]"
        case [*items]:
            return "".join(("[\n", *(f"    {to_toml(item)},\n" for item in items), "]"))
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def values(settings: Settings) -> dict[str, Any]:
    """The settings as JSON or TOML take them, secrets masked; all but these read back as they are."""
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    return dumped


def environment_name(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def _description(name: str) -> list[str]:
    return textwrap.wrap(Settings.model_fields[name].description or "", _WIDTH, break_on_hyphens=False)


def _reference_lines() -> Iterator[str]:
    for name, value in values(Settings()).items():
        if name in GROUPS:
            yield f"\n\n## --- {GROUPS[name]} ".ljust(_WIDTH + 5, "-")
        yield ""
        yield from (f"## {line}" for line in _description(name))
        yield f"## Environment {environment_name(name)}, flag {flag_name(name)}."
        yield from (f"# {line}" for line in f"{name} = {to_toml(value)}".splitlines())


def reference_toml() -> str:
    """Every setting with its description; lines of settings start with `# `, others with `## `."""
    return _HEADER + "\n".join(_reference_lines()) + "\n" + _ENVIRONMENTS


def effective_toml(loaded: Loaded[Settings]) -> str:
    """The settings in effect, each behind a comment that says where it came from."""
    lines = ["# The settings in effect, secrets masked, each with the source it came from."]
    for name, value in values(loaded.settings).items():
        lines += ["", f"# {loaded.sources[name]}", f"{name} = {to_toml(value)}"]
    for environment, own in loaded.environments.items():
        lines += ["", "", f"[{ENVIRONMENTS}.{environment}]"]
        for name, value in values(own.settings).items():
            if name not in PROCESS_WIDE:
                lines += ["", f"# {own.sources[name]}", f"{name} = {to_toml(value)}"]
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """A JSON schema of the TOML file."""
    schema = Settings.model_json_schema()
    for name, value in values(Settings()).items():
        schema["properties"][name]["default"] = value
    schema["properties"][ENVIRONMENTS] = {
        "description": "Named environments. The settings at the top are the defaults of each.",
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
