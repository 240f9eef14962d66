"""Where the API key comes from, and how it is read again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from nanonets_proxy.core.api_key import ApiKey, KeyUnusable
from nanonets_proxy.keys.files import FileUnreadable, read_small_file

KEY_VARIABLE = "NANONETS_API_KEY"
KEY_FILE_VARIABLE = "NANONETS_API_KEY_FILE"
KEY_FILE_NAME = "nanonets_api_key"

DEFAULT_SECRET_DIR = Path("/run/secrets")
"""Where container engines put secrets."""


@dataclass(frozen=True, slots=True)
class EnvironmentKey:
    """The key as the environment held it at start: it cannot change while the program runs."""

    key: ApiKey

    @property
    def name(self) -> str:
        return self.key.name

    def load(self) -> ApiKey:
        return self.key


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key in a file, which each `load` reads anew."""

    path: Path

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    def load(self) -> ApiKey:
        """Read the file.

        Raises:
            KeyUnusable: the file cannot be read, or what it holds is no key.
        """
        try:
            text = read_small_file(self.path)
        except FileUnreadable as error:
            raise KeyUnusable(self.name, f"cannot be had: the file {error}") from None
        return ApiKey.parse(text, self.name)


KeySource: TypeAlias = EnvironmentKey | FileKey


def secret_dirs(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The directories that hold secret files: the container engine's, then systemd's."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return (DEFAULT_SECRET_DIR, Path(credentials)) if credentials else (DEFAULT_SECRET_DIR,)


def missing_key_message(environ: Mapping[str, str]) -> str:
    """What to tell somebody who gave no key: the ways to give one, and a variable that was nearly right."""
    known = (KEY_VARIABLE, KEY_FILE_VARIABLE)
    slips = [name for name in sorted(environ) if get_close_matches(name.upper(), known, n=1, cutoff=0.85)]
    slip = f" ({slips[0]} is set: did you mean {KEY_VARIABLE}?)" if slips else ""
    return (
        f"no API key was given{slip}: set {KEY_VARIABLE}, or set {KEY_FILE_VARIABLE} to the path of a file, "
        f"or put the key into {DEFAULT_SECRET_DIR / KEY_FILE_NAME} or $CREDENTIALS_DIRECTORY/{KEY_FILE_NAME}. "
        "Without a key, a simulated API can be served: nanonets-proxy serve --sandbox"
    )


def find_key_source(
    environ: Mapping[str, str], *, api_key_file: Path | None, dirs: Sequence[Path]
) -> KeySource | None:
    """The first place that names a key: the environment, the file of the settings, the secret files.

    Only the environment's key is looked at; a file is read by `load`.

    Raises:
        KeyUnusable: the environment holds something that is no key, or the key is given twice.
    """
    if (text := environ.get(KEY_VARIABLE)) is not None:
        if api_key_file is not None:
            raise KeyUnusable(
                f"env:{KEY_VARIABLE}",
                f"competes with the key file {api_key_file} ({KEY_FILE_VARIABLE}, api_key_file): keep one",
            )
        return EnvironmentKey(ApiKey.parse(text, f"env:{KEY_VARIABLE}"))
    if api_key_file is not None:
        return FileKey(api_key_file)
    for directory in dirs:
        path = directory / KEY_FILE_NAME
        # A dangling link counts as given: reading it then says what is wrong with it.
        if path.is_symlink() or path.exists():
            return FileKey(path)
    return None
