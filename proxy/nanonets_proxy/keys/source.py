"""Finds the source of the API key, and reads keys from environment variables and files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.audience import Audience
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.files import FileUnreadable, has_secret_as_path, read_small_file, shown_path

if TYPE_CHECKING:
    from nanonets_proxy.keys.change_watch import ChangeWatch

KEY_VARIABLE = "NANONETS_API_KEY"
KEY_FILE_VARIABLE = "NANONETS_API_KEY_FILE"
KEY_FILE_NAME = "nanonets_api_key"

DEFAULT_SECRET_DIR = Path("/run/secrets")
"""The directory in which container engines put secrets."""


class KeySource(Protocol):
    """A place that holds an API key."""

    @property
    def name(self) -> str:
        """A name for logs, such as `file:/run/secrets/nanonets_api_key`."""
        ...

    def read(self) -> tuple[FoundKey, ...]:
        """Returns the current key, then the keys before it if the source keeps them. Blocks; safe in a thread.

        Raises:
            KeyUnusable: the source cannot be read, or its content is not a key.
        """
        ...

    def watch(self) -> "ChangeWatch":
        """Returns a watch that tells when to read the source again."""
        ...


@dataclass(frozen=True, slots=True)
class BoundSource:
    """A source whose keys are for one audience alone."""

    source: KeySource
    audience: Audience

    @property
    def name(self) -> str:
        return self.source.name

    def read(self) -> tuple[FoundKey, ...]:
        """As `KeySource.read`. Raises KeyUnusable also if the audience cannot take the key."""
        return tuple(
            FoundKey(found.key.bound_to(self.audience), found.created_at_s) for found in self.source.read()
        )

    def watch(self) -> "ChangeWatch":
        return self.source.watch()


@dataclass(frozen=True, slots=True)
class InitialKeys:
    """The source of the API key, and the keys that it held at start."""

    source: BoundSource
    keys: tuple[FoundKey, ...]


@dataclass(frozen=True, slots=True)
class EnvironmentKey:
    """A key from an environment variable. It cannot change while the program runs."""

    key: ApiKey
    since_s: float = field(default_factory=time.time, compare=False)

    @property
    def name(self) -> str:
        return self.key.name

    def read(self) -> tuple[FoundKey, ...]:
        return (FoundKey(self.key, self.since_s),)

    def watch(self) -> "ChangeWatch":
        from nanonets_proxy.keys.change_watch import NoChanges  # imported here: as in `FileKey.watch`

        return NoChanges()


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key in a file."""

    path: Path

    @property
    def name(self) -> str:
        return f"file:{shown_path(self.path)}"

    def read(self) -> tuple[FoundKey, ...]:
        """Reads the file. The key counts as created when the file was last modified.

        Raises KeyUnusable.
        """
        try:
            text = read_small_file(self.path)
            since_s = self.path.stat().st_mtime
        except FileUnreadable as error:
            setting = f"api_key_file ({KEY_FILE_VARIABLE})"
            hint = f"; the value of {setting} may be the key itself" if has_secret_as_path(self.path) else ""
            raise KeyUnusable(self.name, f"is unavailable: the file {error}{hint}") from None
        except OSError:
            since_s = time.time()  # the file was removed after it was read
        return (FoundKey(ApiKey.parse(text, self.name), since_s),)

    def watch(self) -> "ChangeWatch":
        # Imported here: reading the settings needs this module, and watches nothing. The import would load asyncio.
        from nanonets_proxy.keys.change_watch import FileWatch

        return FileWatch(self.path)


_engine_dirs = [DEFAULT_SECRET_DIR]


def ignore_engine_secrets() -> None:
    """Lets this process and its forks find no secrets of a container engine: a test must not use a real key."""
    _engine_dirs.clear()


def secret_dirs(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Returns the directories that may hold secret files: the container engine's, then systemd's."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return (*_engine_dirs, Path(credentials)) if credentials else tuple(_engine_dirs)


def key_variable(environment: str) -> str:
    """Returns the variable that holds an environment's key. `environment` is "" unless several are configured."""
    return f"{KEY_VARIABLE}{_suffix(environment).upper()}"


def is_of_key_source(variable: str) -> bool:
    """Returns whether a variable may hold a key, or the login credential of a store."""
    from nanonets_proxy.keys.vault_policy import TOKEN_VARIABLE  # imported here: `run` needs no store

    return variable == TOKEN_VARIABLE or (variable.startswith(KEY_VARIABLE) and variable != KEY_FILE_VARIABLE)


def key_file_name(environment: str) -> str:
    """Returns the name of the secret file that holds an environment's key. `environment`: as for `key_variable`."""
    return f"{KEY_FILE_NAME}{_suffix(environment)}"


def _suffix(environment: str) -> str:
    return f"_{environment.replace('-', '_')}" if environment else ""


def missing_key_message(environ: Mapping[str, str], environment: str = "") -> str:
    """Returns a message that lists the ways to give a key, and a set variable whose name looks misspelt."""
    variable, file_name = key_variable(environment), key_file_name(environment)
    if environment:
        return (
            f"environments.{environment}: no API key was given: set api_key_file (or api_key_command, vault_path, "
            f"aws_secret) in its table, or the variable {variable}, or put the key into "
            f"{DEFAULT_SECRET_DIR / file_name} or $CREDENTIALS_DIRECTORY/{file_name}"
        )
    from difflib import get_close_matches  # only for a program that cannot start

    known = (KEY_VARIABLE, KEY_FILE_VARIABLE)
    misspelt = [name for name in sorted(environ) if get_close_matches(name.upper(), known, n=1, cutoff=0.85)]
    hint = f" ({misspelt[0]} is set: did you mean {KEY_VARIABLE}?)" if misspelt else ""
    return (
        f"no API key was given{hint}: set {KEY_VARIABLE}, or set {KEY_FILE_VARIABLE} to the path of a file, "
        f"or put the key into {DEFAULT_SECRET_DIR / KEY_FILE_NAME} or $CREDENTIALS_DIRECTORY/{KEY_FILE_NAME}; "
        "a command, Vault and AWS can give it too (api_key_command, vault_path, aws_secret). "
        "Without a key, a simulated API can be served: nanonets-proxy serve --sandbox"
    )


def find_key_source(
    environ: Mapping[str, str],
    *,
    api_key_file: Path | None,
    dirs: Sequence[Path],
    stores: Sequence[KeySource] = (),
    environment: str = "",
) -> KeySource | None:
    """Returns the one source that is configured, otherwise the first secret file that exists, or None.

    A source is configured by the environment's variable, by the setting `api_key_file`, or as one of `stores`.
    Only the variable's key is read here.

    Raises:
        KeyUnusable: the variable's value is not a key, or more than one source is configured.
    """
    variable = key_variable(environment)
    sources: list[KeySource] = [*stores] if api_key_file is None else [FileKey(api_key_file), *stores]
    if (text := environ.get(variable)) is not None:
        if api_key_file is not None:
            shown = f"{shown_path(api_key_file)} ({KEY_FILE_VARIABLE}, api_key_file)"
            raise KeyUnusable(f"env:{variable}", f"competes with the key file {shown}: keep one")
        sources.insert(0, EnvironmentKey(ApiKey.parse(text, f"env:{variable}")))
    if len(sources) > 1:
        raise KeyUnusable(sources[0].name, f"competes with {sources[1].name}: keep one")
    if sources:
        return sources[0]
    for directory in dirs:
        path = directory / key_file_name(environment)
        # A dangling link counts as present: reading it later reports the fault.
        if path.is_symlink() or path.exists():
            return FileKey(path)
    return None


def is_constant(source: KeySource) -> bool:
    """Returns whether the source's key cannot change while the program runs."""
    return isinstance(source.source if isinstance(source, BoundSource) else source, EnvironmentKey)


class NoKeyGiven(Exception):
    """No source of a key is configured or present. The message lists the ways to give a key."""


@dataclass(frozen=True, slots=True)
class KeySourceConfig:
    """The configured sources of one environment's key.

    The variable and the secret files are named after the environment, so no setting is needed for them.
    """

    environment: str = ""
    api_key_file: Path | None = None
    stores: tuple[KeySource, ...] = ()

    def find(self, environ: Mapping[str, str], dirs: Sequence[Path] | None = None) -> KeySource:
        """Returns the source of the key. `dirs`: where to look for secret files, by default `secret_dirs(environ)`.

        Raises:
            KeyUnusable: as `find_key_source`.
            NoKeyGiven: no source is configured, and no secret file exists.
        """
        source = find_key_source(
            environ,
            api_key_file=self.api_key_file,
            dirs=secret_dirs(environ) if dirs is None else dirs,
            stores=self.stores,
            environment=self.environment,
        )
        if source is None:
            raise NoKeyGiven(missing_key_message(environ, self.environment))
        return source
