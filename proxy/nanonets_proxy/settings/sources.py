"""The sources of settings: flags, environment, secret files, a TOML file.

Each reader gives what it found, name by name, and what is wrong with it: an unknown name never passes.
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

DEFAULT_CONFIG = Path("nanonets-proxy.toml")

# What people call the key when they put it where settings go.
_KEY_WORDS = frozenset({"api_key", "apikey", "key", "nanonets_api_key"})
# Kubernetes puts the address of each Service into the environment of its neighbours; a Service called
# nanonets-proxy gives names such as NANONETS_PROXY_PORT_8080_TCP_ADDR.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")
_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as a source gave it, and the words for that source in messages."""

    value: Any = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source gave. `problems` are whole sentences."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def read_flags(flags: Mapping[str, Any]) -> Reading:
    """Flags, as the argument parser gave them; it refuses unknown ones itself."""
    return Reading({name: Given(value, f"flag {flag_name(name)}") for name, value in flags.items()})


def flag_hint(flag: str, names: Collection[str]) -> str:
    """The end of a sentence about an unknown flag."""
    if flag.removeprefix("--").replace("-", "_").lower() in _KEY_WORDS:
        return f"the key is never a flag, which others could see: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
    return did_you_mean(flag, names)


def read_environment(
    names: Collection[str],
    prefix: str,
    environ: Mapping[str, str],
    *,
    aliases: Mapping[str, str],
    others: Collection[str] = (),
) -> Reading:
    """Variables that start with `prefix`, in upper case alone.

    `aliases` are further variables for a setting; `others` are known variables that are no settings.
    """
    reading = Reading()
    variables = {f"{prefix}{name}".upper(): name for name in names} | dict(aliases)
    for variable, value in environ.items():
        if (name := variables.get(variable)) is not None:
            if name in reading.given:
                first = reading.given[name].source.removeprefix("environment ")
                reading.problems.append(f"{name}: {first} and {variable} are both set; keep one of them")
            reading.given[name] = Given(value, f"environment {variable}")
        elif variable.upper().startswith(prefix) and variable not in others:
            rest = variable.upper().removeprefix(prefix)
            if _is_service_link(rest, value):
                continue
            hint = (
                f"did you mean {KEY_VARIABLE}?"
                if rest.lower() in _KEY_WORDS
                else did_you_mean(variable.upper(), [*variables, *others])
            )
            reading.problems.append(f"{variable}: no such setting (environment); {hint}")
    return reading


def _is_service_link(rest: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(rest) is not None or (rest == "PORT" and _SERVICE_URL.match(value) is not None)


def read_secret_files(names: Collection[str], prefix: str, dirs: Sequence[Path]) -> Reading:
    """Files named `prefix` and a setting, in lower case; the first directory that has one counts."""
    reading = Reading()
    file_names = {f"{prefix}{name}".lower(): name for name in names}
    for directory in dirs:
        try:
            found = sorted(entry.name for entry in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reading.problems.append(f"secret files: the directory {directory} {os_fault(error)}")
            continue
        for file_name in found:
            path = directory / file_name
            if (name := file_names.get(file_name)) is not None:
                if name not in reading.given:
                    _read_secret_file(reading, name, path)
            elif file_name.lower().startswith(prefix.lower()):
                hint = (
                    f"did you mean {KEY_FILE_NAME}?"
                    if file_name.lower().removeprefix(prefix.lower()) in _KEY_WORDS
                    else did_you_mean(file_name.lower(), file_names)
                )
                reading.problems.append(f"{file_name}: no such setting (file {path}); {hint}")
    return reading


def _read_secret_file(reading: Reading, name: str, path: Path) -> None:
    try:
        # Settings are UTF-8 everywhere; the reader gives one character for each byte.
        value = read_small_file(path).encode("latin-1").decode("utf-8").strip()
    except FileUnreadable as error:
        reading.problems.append(f"{name}: the file {path} {error}")
    except UnicodeDecodeError:
        reading.problems.append(f"{name}: the file {path} is not UTF-8")
    else:
        reading.given[name] = Given(value, f"file {path}")


ENVIRONMENTS = "environments"
"""The table of the TOML file that has a table for each named environment."""

_ENVIRONMENT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# NANONETS_API_KEY_FILE is the variable of a setting, and not of an environment with such a name.
_TAKEN_NAMES = frozenset({"file"})


def read_environments(names: Collection[str], shared: Collection[str], toml: Reading) -> dict[str, Reading]:
    """The environments of a TOML file, taken out of its reading: for each a reading of its own.

    `names` are the settings that an environment may have, `shared` those that only the process has. What is
    wrong with any of them goes to the problems of `toml`.
    """
    given = toml.given.pop(ENVIRONMENTS, None)
    if given is None:
        return {}
    if not isinstance(given.value, dict) or not all(isinstance(table, dict) for table in given.value.values()):
        toml.problems.append(f"{ENVIRONMENTS}: holds tables, such as [environments.staging] ({given.source})")
        return {}
    readings = {}
    for environment, table in given.value.items():
        place = f"{ENVIRONMENTS}.{environment}"
        if not _ENVIRONMENT_NAME.fullmatch(environment) or environment in _TAKEN_NAMES:
            toml.problems.append(
                f"{place}: is no name for an environment ({given.source}): "
                "up to 32 lower-case letters, digits, - and _, a letter first, and not file"
            )
            continue
        reading = readings[environment] = Reading()
        for key, value in table.items():
            if key in names:
                reading.given[key] = Given(value, f"{given.source}, {place}")
            elif key in shared:
                toml.problems.append(
                    f"{place}.{key}: is of the whole process; it stands at the top ({given.source})"
                )
            elif key.lower() in _KEY_WORDS:
                toml.problems.append(
                    f"{place}.{key}: the key never stands in a settings file ({given.source}); set api_key_file"
                )
            else:
                toml.problems.append(f"{place}.{key}: no such setting ({given.source}); {did_you_mean(key, names)}")
    return readings


def read_toml(names: Collection[str], path: Path, named_by: str | None) -> Reading:
    """A TOML file. `named_by` is who asked for it: None for the default, which may be missing. The tables of
    environments come as they are, under the name `ENVIRONMENTS`."""
    asked = "" if named_by is None else f" ({named_by})"
    try:
        content = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        return Reading() if named_by is None else Reading(problems=[f"{path}: {os_fault(error)}{asked}"])
    except OSError as error:
        return Reading(problems=[f"{path}: {os_fault(error)}{asked}"])
    except UnicodeDecodeError:
        return Reading(problems=[f"{path}: is not UTF-8, as TOML must be{asked}"])
    except ValueError:
        return Reading(problems=["--config: is not a file name: it has a null byte in it"])
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        fault = str(error)
        place = _TOML_PLACE.search(fault)
        line = place["line"] if place and place["line"] else content.count("\n") + 1
        return Reading(problems=[f"{path}:{line}: {_TOML_PLACE.sub('', fault)}"])
    reading = Reading()
    for key, value in values.items():
        if key in names or key == ENVIRONMENTS:
            reading.given[key] = Given(value, str(path))
        elif key.lower() in _KEY_WORDS:
            reading.problems.append(
                f"{key}: the key never stands in a settings file ({path}); "
                f"set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
            )
        else:
            reading.problems.append(f"{key}: no such setting ({path}); {did_you_mean(key, names)}")
    return reading
