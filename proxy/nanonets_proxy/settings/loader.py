"""From the sources to a frozen `Settings`, or to one sentence for each thing that is wrong."""

import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from nanonets_proxy.core.addresses import Listener, TcpListener
from nanonets_proxy.keys.files import os_fault
from nanonets_proxy.keys.source import KEY_FILE_VARIABLE, secret_dirs
from nanonets_proxy.settings.base import ProgramSettings
from nanonets_proxy.settings.errors import SettingsError
from nanonets_proxy.settings.model import SandboxSettings, Settings
from nanonets_proxy.settings.sources import (
    DEFAULT_CONFIG,
    Given,
    Reading,
    read_environment,
    read_flags,
    read_secret_files,
    read_toml,
)

CONFIG_VARIABLE = "NANONETS_PROXY_CONFIG"

AnySettings = TypeVar("AnySettings", bound=ProgramSettings)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[AnySettings]):
    """Settings, and for each the words for where its value came from."""

    settings: AnySettings
    sources: Mapping[str, str]


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
    loaded = _combine(
        Settings,
        toml,
        read_secret_files(names, prefix, secret_dirs(environ) if dirs is None else dirs),
        read_environment(names, prefix, environ, aliases=aliases, others=(CONFIG_VARIABLE,)),
        read_flags(flags),
    )
    if problems := list(_contradictions(loaded)):
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


def _contradictions(loaded: Loaded[Settings]) -> Iterator[str]:
    """What each value allows by itself, and all of them together do not."""
    settings, sources = loaded.settings, loaded.sources

    def named(name: str) -> str:
        return f"{name} ({sources[name]})"

    addresses = [("listen", item) for item in settings.listen]
    addresses += [("admin_listen", item) for item in settings.admin_listen]
    for name, address in addresses:
        if not settings.allow_from and not address.is_local:
            yield (
                f"{name}: {address} can be reached from other machines ({sources[name]}), and allow_from "
                "names none that may call: set allow_from, such as 10.0.0.0/8, or listen on 127.0.0.1"
            )
    places: dict[Listener | str, str] = {}
    for name, address in addresses:
        place = _place(address)
        if place in places:
            yield f"{name}: {address} is taken already by {named(places[place])}"
        elif place is not None:
            places[place] = name
    if settings.egress_proxy is not None and not settings.upstream.tls:
        yield (
            f"egress_proxy: is for an https upstream only ({sources['egress_proxy']}); "
            f"{named('upstream')} is {settings.upstream}"
        )
    for name in ("body_memory_total", "replay_limit"):
        if settings.body_memory > getattr(settings, name):
            yield f"body_memory: is larger than {named(name)} allows ({sources['body_memory']})"


def _place(address: Listener) -> Listener | str | None:
    """What two listeners cannot share: None where port 0 gives each its own."""
    if isinstance(address, TcpListener):
        return address if address.port else None
    return address.path


def verify_files(loaded: Loaded[Settings]) -> None:
    """Look at what the settings point to: certificate authorities are there, bodies can be written.

    Raises:
        SettingsError: one of them cannot be used.
    """
    if problems := [*_ca_file_problems(loaded), *_spool_problems(loaded)]:
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
