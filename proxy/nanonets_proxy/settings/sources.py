"""Reads each source of settings: flags, environment, secret files, a TOML file.

Each function returns the values of one source, and one sentence for each unknown name and each unreadable value.
"""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanonets_proxy.keys.files import FileUnreadable, os_fault, read_small_file
from nanonets_proxy.keys.source import KEY_FILE_NAME, KEY_FILE_VARIABLE, KEY_VARIABLE
from nanonets_proxy.settings.errors import did_you_mean
from nanonets_proxy.settings.toml_lines import TomlPlace

DEFAULT_CONFIG = Path("nanonets-proxy.toml")

# People put the key among the settings under these names, by mistake.
_KEY_NAMES = frozenset({"api_key", "apikey", "key", "nanonets_api_key"})
# Kubernetes adds variables for each Service of a namespace to every pod. A Service called nanonets-proxy adds
# names such as NANONETS_PROXY_PORT_8080_TCP_ADDR.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")
_UNQUOTED = '; text needs quotes, as in max_wait = "30s"'
# For each beginning of a message of Python's parser, the end of the sentence.
_TOML_HINTS = {
    "Expected newline or end of document after a statement": _UNQUOTED,  # max_wait = 30s
    "Invalid value": _UNQUOTED,  # log_level = debug
    "Cannot overwrite a value": "; its name is set twice",
}
_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """An unparsed value, and the name of its source in messages."""

    value: Any = field(repr=False)
    source: str
    toml: TomlPlace | None = None

    def place(self) -> str:
        """Returns the source, with the line if it is a TOML file."""
        return self.source if self.toml is None else str(self.toml)


@dataclass(frozen=True, slots=True)
class SourceValues:
    """The values of one source, by the names of the settings, and a sentence for each problem."""

    values: dict[str, SourcedValue] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def flag_name(name: str) -> str:
    """Returns the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def read_flags(flags: Mapping[str, Any]) -> SourceValues:
    """Returns the values of flags. The argument parser has already rejected unknown flags."""
    return SourceValues({name: SourcedValue(value, f"flag {flag_name(name)}") for name, value in flags.items()})


def flag_hint(flag: str, names: Collection[str]) -> str:
    """Returns the end of a sentence about an unknown flag."""
    if flag.removeprefix("--").replace("-", "_").lower() in _KEY_NAMES:
        return f"a flag cannot hold the key, as other users could see it: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
    return did_you_mean(flag, names, "--")


def read_variables(
    names: Collection[str],
    prefix: str,
    environ: Mapping[str, str],
    *,
    aliases: Mapping[str, str],
    others: Collection[str] = (),
) -> SourceValues:
    """Returns the values of the environment variables that start with `prefix`, in upper case.

    `aliases` maps further variables to settings. `others` are known variables that are not settings.
    """
    result = SourceValues()
    variables = {f"{prefix}{name}".upper(): name for name in names} | dict(aliases)
    for variable, value in environ.items():
        if (name := variables.get(variable)) is not None:
            if name in result.values:
                first = result.values[name].source.removeprefix("environment ")
                result.problems.append(f"{name}: {first} and {variable} are both set; keep one of them")
            result.values[name] = SourcedValue(value, f"environment {variable}")
        elif variable.upper().startswith(prefix) and variable not in others:
            suffix = variable.upper().removeprefix(prefix)
            if _is_service_link(suffix, value):
                continue
            hint = (
                f"did you mean {KEY_VARIABLE}?"
                if suffix.lower() in _KEY_NAMES
                else did_you_mean(variable.upper(), [*variables, *others], prefix)
            )
            result.problems.append(f"{variable}: unknown setting (environment); {hint}")
    return result


def _is_service_link(suffix: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(suffix) is not None or (
        suffix == "PORT" and _SERVICE_URL.match(value) is not None
    )


def read_secret_files(names: Collection[str], prefix: str, dirs: Sequence[Path]) -> SourceValues:
    """Returns the values of files named `prefix` and a setting, in lower case. Earlier directories win."""
    result = SourceValues()
    file_names = {f"{prefix}{name}".lower(): name for name in names}
    for directory in dirs:
        try:
            entries = sorted(entry.name for entry in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            result.problems.append(f"secret files: the directory {directory} {os_fault(error)}")
            continue
        for file_name in entries:
            path = directory / file_name
            if (name := file_names.get(file_name)) is not None:
                if name not in result.values:
                    _read_secret_file(result, name, path)
            elif file_name.lower().startswith(prefix.lower()):
                hint = (
                    f"did you mean {KEY_FILE_NAME}?"
                    if file_name.lower().removeprefix(prefix.lower()) in _KEY_NAMES
                    else did_you_mean(file_name.lower(), file_names, prefix.lower())
                )
                result.problems.append(f"{file_name}: unknown setting (file {path}); {hint}")
    return result


def _read_secret_file(result: SourceValues, name: str, path: Path) -> None:
    try:
        # All sources are UTF-8, but `read_small_file` returns one character for each byte.
        value = read_small_file(path).encode("latin-1").decode("utf-8").strip()
    except FileUnreadable as error:
        result.problems.append(f"{name}: the file {path} {error}")
    except UnicodeDecodeError:
        result.problems.append(f"{name}: the file {path} is not UTF-8")
    else:
        result.values[name] = SourcedValue(value, f"file {path}")


ENVIRONMENTS = "environments"
"""The TOML table that holds one table for each named environment."""

_ENVIRONMENT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# NANONETS_API_KEY_FILE sets api_key_file, so it cannot hold the key of an environment called `file`.
_RESERVED_NAMES = frozenset({"file"})


def read_environment_tables(
    names: Collection[str], shared: Collection[str], toml: SourceValues
) -> dict[str, SourceValues]:
    """Removes the environments' tables from `toml`, and returns the values of each by its name.

    `names` are the settings that an environment may have, `shared` those that apply to the whole process. The
    problems of all tables are added to those of `toml`.
    """
    tables = toml.values.pop(ENVIRONMENTS, None)
    if tables is None:
        return {}
    toml_place = tables.toml
    assert toml_place is not None, "they are from a TOML file"
    if not isinstance(tables.value, dict) or not all(isinstance(table, dict) for table in tables.value.values()):
        toml.problems.append(f"{ENVIRONMENTS}: must hold tables, such as [environments.staging] ({toml_place})")
        return {}
    results = {}
    for environment, table in tables.value.items():
        place, table_place = f"{ENVIRONMENTS}.{environment}", toml_place.at(environment)
        if not _ENVIRONMENT_NAME.fullmatch(environment) or environment in _RESERVED_NAMES:
            toml.problems.append(
                f"{place}: is not a valid name for an environment ({table_place}): use up to 32 lower-case "
                "letters, digits, - and _, start with a letter, and do not use the name `file`"
            )
            continue
        result = results[environment] = SourceValues()
        for key, value in table.items():
            setting = table_place.at(key)
            if key in names:
                result.values[key] = SourcedValue(value, setting.source, setting)
            elif key in shared:
                toml.problems.append(
                    f"{place}.{key}: applies to the whole process; set it at the top of the file ({setting})"
                )
            elif key.lower() in _KEY_NAMES:
                toml.problems.append(
                    f"{place}.{key}: a settings file cannot hold the key ({setting}); set api_key_file"
                )
            else:
                toml.problems.append(f"{place}.{key}: unknown setting ({setting}); {did_you_mean(key, names)}")
    return results


def read_toml(names: Collection[str], path: Path, requested_by: str | None) -> SourceValues:
    """Returns the values of a TOML file. `read_environment_tables` reads the tables under `ENVIRONMENTS`.

    `requested_by` is the source that names the file, or None for the default file, which may be missing.
    """
    origin = "" if requested_by is None else f" ({requested_by})"
    try:
        content = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        if requested_by is None:
            return SourceValues()
        return SourceValues(problems=[f"{path}: {os_fault(error)}{origin}"])
    except OSError as error:
        return SourceValues(problems=[f"{path}: {os_fault(error)}{origin}"])
    except UnicodeDecodeError:
        return SourceValues(problems=[f"{path}: is not UTF-8, as TOML must be{origin}"])
    except ValueError:
        return SourceValues(problems=["--config: is not a file name: it contains a null byte"])
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        fault = str(error)
        place = _TOML_PLACE.search(fault)
        line = place["line"] if place and place["line"] else content.count("\n") + 1
        fault = _TOML_PLACE.sub("", fault)
        hint = next((hint for start, hint in _TOML_HINTS.items() if fault.startswith(start)), "")
        return SourceValues(problems=[f"{path}:{line}: {fault}{hint}"])
    result = SourceValues()
    file = TomlPlace(path, content)
    for key, value in values.items():
        setting = file.at(key)
        if key in names or key == ENVIRONMENTS:
            result.values[key] = SourcedValue(value, setting.source, setting)
        elif key.lower() in _KEY_NAMES:
            result.problems.append(
                f"{key}: a settings file cannot hold the key ({setting}); set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
            )
        else:
            result.problems.append(f"{key}: unknown setting ({setting}); {did_you_mean(key, names)}")
    return result
