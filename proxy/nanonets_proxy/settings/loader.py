"""From the sources to a frozen `Settings`, or to one sentence for each thing that is wrong."""

import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanonets_proxy.core.access.caller_tokens import CallersByToken
from nanonets_proxy.keys.files import os_fault
from nanonets_proxy.keys.reloaded_file import read_caller_tokens
from nanonets_proxy.keys.source import KEY_FILE_VARIABLE, secret_dirs
from nanonets_proxy.server.tls import make_listener_context
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.loaded import AnySettings, Loaded
from nanonets_proxy.settings.model.proxy import PROCESS_WIDE, SandboxSettings, Settings
from nanonets_proxy.settings.sources import (
    DEFAULT_CONFIG,
    ENVIRONMENTS,
    Given,
    Reading,
    read_environment,
    read_environments,
    read_flags,
    read_secret_files,
    read_toml,
)
from nanonets_proxy.settings.validation import contradictions

CONFIG_VARIABLE = "NANONETS_PROXY_CONFIG"


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    config: str | None = None,
    dirs: Sequence[Path] | None = None,
    default_config: Path = DEFAULT_CONFIG,
) -> Loaded[Settings]:
    """The proxy's settings. A flag wins over the environment, then secret files, the TOML file, the default.

    `flags` maps names of settings to texts or booleans; `config` is the value of `--config`; `dirs` are the
    directories of secret files, by default those that `environ` tells.

    Raises:
        SettingsError: any source has an unknown name or a bad value, or two values contradict each other.
    """
    names = Settings.model_fields
    if config is not None:
        toml = read_toml(names, Path(config), "flag --config")
    elif CONFIG_VARIABLE in environ:
        toml = read_toml(names, Path(environ[CONFIG_VARIABLE]), f"environment {CONFIG_VARIABLE}")
    else:
        toml = read_toml(names, default_config, None)
    prefix = Settings.model_config["env_prefix"]
    aliases = {KEY_FILE_VARIABLE: "api_key_file"}
    tables = read_environments(names.keys() - PROCESS_WIDE, PROCESS_WIDE, toml)
    readings = (
        toml,
        read_secret_files(names, prefix, secret_dirs(environ) if dirs is None else dirs),
        read_environment(names, prefix, environ, aliases=aliases, others=(CONFIG_VARIABLE,)),
        read_flags(flags),
    )
    process = _combine(Settings, *readings)
    if not tables:
        if problems := list(contradictions(process, [("", process)])):
            raise SettingsError(*problems)
        return process
    environments = _environments(tables, readings)
    if problems := list(contradictions(process, list(environments.items()))):
        raise SettingsError(*problems)
    return Loaded(process.settings, process.sources, environments)


def _environments(tables: Mapping[str, Reading], readings: Sequence[Reading]) -> dict[str, Loaded[Settings]]:
    """What stands at the top is the default of each; a table wins over all of that, being more particular."""
    loaded, problems = {}, []
    for name, table in tables.items():
        try:
            loaded[name] = _combine(Settings, *readings, table)
        except SettingsError as error:
            problems += [f"{ENVIRONMENTS}.{name}.{problem}" for problem in error.problems]
    if problems:
        raise SettingsError(*problems)
    return loaded


def load_sandbox_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, dirs: Sequence[Path] | None = None
) -> Loaded[SandboxSettings]:
    """The settings of the simulated API alone: flags, environment, secret files.

    Raises:
        SettingsError: as `load_settings`.
    """
    names, prefix = SandboxSettings.model_fields, SandboxSettings.model_config["env_prefix"]
    return _combine(
        SandboxSettings,
        read_secret_files(names, prefix, secret_dirs(environ) if dirs is None else dirs),
        read_environment(names, prefix, environ, aliases={}),
        read_flags(flags),
    )


def _combine(kind: type[AnySettings], *weakest_first: Reading) -> Loaded[AnySettings]:
    empty: dict[str, Given] = {}
    given = reduce(lambda merged, reading: merged | reading.given, weakest_first, empty)
    problems = [problem for reading in weakest_first for problem in reading.problems]
    try:
        settings = kind(**{name: item.value for name, item in given.items()})
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0])
            sentence = str(fault.get("ctx", {}).get("error", fault["msg"]))
            problems.append(f"{name}: {sentence} ({given[name].source})")
        raise SettingsError(*problems) from None
    if problems:
        raise SettingsError(*problems)
    sources = {name: given[name].source if name in given else "default" for name in kind.model_fields}
    return Loaded(settings, sources)


def verify_files(loaded: Loaded[Settings]) -> None:
    """Look at what the settings point to: certificate authorities are there, bodies can be written.

    Raises:
        SettingsError: one of them cannot be used.
    """
    problems = []
    for name, own in [("", loaded), *loaded.environments.items()]:
        prefix = f"{ENVIRONMENTS}.{name}." if name else ""
        found = (*_ca_file_problems(own), *_spool_problems(own), *_caller_file_problems(own))
        problems += [f"{prefix}{problem}" for problem in found]
    if problems:
        raise SettingsError(*problems)


def _ca_file_problems(loaded: Loaded[Settings]) -> Iterator[str]:
    path, source = loaded.settings.ca_file, loaded.sources["ca_file"]
    if path is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        yield f"ca_file: {path} holds no PEM certificates ({source})"
    except OSError as error:
        yield f"ca_file: {path} {os_fault(error)} ({source})"
    else:
        if not context.cert_store_stats()["x509"]:
            yield f"ca_file: {path} holds no PEM certificates ({source})"


def _spool_problems(loaded: Loaded[Settings]) -> Iterator[str]:
    try:
        path = loaded.settings.spool_path()
        # Permissions alone do not tell it: the file system may be read-only.
        with tempfile.TemporaryFile(dir=path):
            return
    except OSError as error:
        name = loaded.settings.spool_dir or "the system's temporary directory"
        fault = error.strerror.lower() if error.strerror else "no directory can be written to"
        yield f"spool_dir: {name} cannot hold bodies: {fault} ({loaded.sources['spool_dir']})"


def _caller_file_problems(loaded: Loaded[Settings]) -> Iterator[str]:
    path, sources = loaded.settings.caller_tokens_file, loaded.sources
    if path is not None:
        try:
            CallersByToken(read_caller_tokens(path))
        except ValueError as error:
            yield f"caller_tokens_file: {path} {error} ({sources['caller_tokens_file']})"
    if (tls := loaded.settings.listener_tls()) is not None:
        try:
            make_listener_context(tls)
        except ssl.SSLError as error:
            fault = error.reason or error
            place = f"{tls.cert_file}, its key or its authorities"
            yield f"tls_cert: {place} cannot be used: {fault} ({sources['tls_cert']})"
        except OSError as error:
            yield f"tls_cert: a file that it needs {os_fault(error)} ({sources['tls_cert']})"
