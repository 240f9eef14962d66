"""Where the API key comes from: which source counts, and the two that need nothing but the machine."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.change_watch import ChangeWatch, FileWatch, NoChanges
from nanonets_proxy.keys.files import FileUnreadable, read_small_file

KEY_VARIABLE = "NANONETS_API_KEY"
KEY_FILE_VARIABLE = "NANONETS_API_KEY_FILE"
KEY_FILE_NAME = "nanonets_api_key"

DEFAULT_SECRET_DIR = Path("/run/secrets")
"""Where container engines put secrets."""


class KeySource(Protocol):
    """`name` is fit for logs, such as `file:/run/secrets/nanonets_api_key`."""

    @property
    def name(self) -> str: ...

    def read(self) -> tuple[FoundKey, ...]:
        """What it holds now: the key, then those before it where the source knows them. Blocks; safe in a thread.

        Raises:
            KeyUnusable: it cannot be had, or is no key.
        """
        ...

    def watch(self) -> ChangeWatch:
        """Tells when to read again."""
        ...


@dataclass(frozen=True, slots=True)
class EnvironmentKey:
    """The key as the environment held it at start: it cannot change while the program runs."""

    key: ApiKey
    since_s: float = field(default_factory=time.time, compare=False)

    @property
    def name(self) -> str:
        return self.key.name

    def read(self) -> tuple[FoundKey, ...]:
        return (FoundKey(self.key, self.since_s),)

    def watch(self) -> ChangeWatch:
        return NoChanges()


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key in a file, which each `read` reads anew."""

    path: Path

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    def read(self) -> tuple[FoundKey, ...]:
        """As old as the file is."""
        try:
            text = read_small_file(self.path)
            since_s = self.path.stat().st_mtime
        except FileUnreadable as error:
            raise KeyUnusable(self.name, f"cannot be had: the file {error}") from None
        except OSError:
            since_s = time.time()  # it has gone since
        return (FoundKey(ApiKey.parse(text, self.name), since_s),)

    def watch(self) -> ChangeWatch:
        return FileWatch(self.path)


def secret_dirs(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The directories that hold secret files: the container engine's, then systemd's."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return (DEFAULT_SECRET_DIR, Path(credentials)) if credentials else (DEFAULT_SECRET_DIR,)


def key_variable(environment: str) -> str:
    """The variable that holds the key of a named environment; of the only one, where it has no name."""
    return f"{KEY_VARIABLE}{_suffix(environment).upper()}"


def key_file_name(environment: str) -> str:
    """What a secret file with the key is called, likewise."""
    return f"{KEY_FILE_NAME}{_suffix(environment)}"


def _suffix(environment: str) -> str:
    return f"_{environment.replace('-', '_')}" if environment else ""


def missing_key_message(environ: Mapping[str, str], environment: str = "") -> str:
    """What to tell somebody who gave no key: the ways to give one, and a variable that was nearly right."""
    variable, file_name = key_variable(environment), key_file_name(environment)
    if environment:
        return (
            f"environments.{environment}: no API key was given: set api_key_file (or api_key_command, vault_path, "
            f"aws_secret) in its table, or the variable {variable}, or put the key into "
            f"{DEFAULT_SECRET_DIR / file_name} or $CREDENTIALS_DIRECTORY/{file_name}"
        )
    known = (KEY_VARIABLE, KEY_FILE_VARIABLE)
    slips = [name for name in sorted(environ) if get_close_matches(name.upper(), known, n=1, cutoff=0.85)]
    slip = f" ({slips[0]} is set: did you mean {KEY_VARIABLE}?)" if slips else ""
    return (
        f"no API key was given{slip}: set {KEY_VARIABLE}, or set {KEY_FILE_VARIABLE} to the path of a file, "
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
    """The place that names a key: the environment, the file of the settings, one of `stores`; without any of
    these, the secret files.

    Only the environment's key is looked at; everything else is by `read`.

    Raises:
        KeyUnusable: the environment holds something that is no key, or the key is given twice.
    """
    variable = key_variable(environment)
    named: list[KeySource] = [*stores] if api_key_file is None else [FileKey(api_key_file), *stores]
    if (text := environ.get(variable)) is not None:
        if api_key_file is not None:
            raise KeyUnusable(
                f"env:{variable}",
                f"competes with the key file {api_key_file} ({KEY_FILE_VARIABLE}, api_key_file): keep one",
            )
        named.insert(0, EnvironmentKey(ApiKey.parse(text, f"env:{variable}")))
    if len(named) > 1:
        raise KeyUnusable(named[0].name, f"competes with {named[1].name}: keep one")
    if named:
        return named[0]
    for directory in dirs:
        path = directory / key_file_name(environment)
        # A dangling link counts as given: reading it then says what is wrong with it.
        if path.is_symlink() or path.exists():
            return FileKey(path)
    return None


class NoKeyGiven(Exception):
    """No place has a key. The message says which there are."""


@dataclass(frozen=True, slots=True)
class KeySourceConfig:
    """Where the settings say that the key of an environment is: a file, or `stores`. The variable and the secret
    files that are called after the environment need no saying."""

    environment: str = ""
    api_key_file: Path | None = None
    stores: tuple[KeySource, ...] = ()

    def find(self, environ: Mapping[str, str], dirs: Sequence[Path] | None = None) -> KeySource:
        """The one that counts. `dirs` are the directories of secret files, by default those that `environ` tells.

        Raises:
            KeyUnusable: as `find_key_source`.
            NoKeyGiven: there is none.
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
