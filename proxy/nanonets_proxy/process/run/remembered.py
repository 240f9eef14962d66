"""Remembers which settings were valid, so that the next `run` with the same settings need not wait for their check.

A file in the user's cache directory has a digest of the settings: of flags, variables and the settings file, and of
the code of the settings. That code adds the digest after it has accepted them, and only if their texts alone make
them valid (`settings/model/groups.py`): none of them is a secret, names a file that may change, or a store of keys.
The digest does not see that a validator outside `settings/` has changed within one version, which happens only in a
checkout. The command then starts although its proxy ends with an error.
If the file cannot be read or written, the command only waits longer.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from nanonets_proxy import __version__
from nanonets_proxy.keys.files import MAX_FILE_BYTES, FileUnreadable, open_without_waiting, read_small_file
from nanonets_proxy.process.run.variables import KEY_VARIABLE

SETTINGS_FILE: Final = Path("nanonets-proxy.toml")
SETTINGS_PREFIX: Final = "nanonets_proxy"

_SECRETS: Final = Path("/run/secrets")
_PROGRAM: Final = Path(__file__).parents[2]
_CONFIG_VARIABLE: Final = "NANONETS_PROXY_CONFIG"
_CONFIG_FLAG: Final = "--config"
_MOST: Final = 32
_DIGEST_BYTES: Final = 32
_OTHERS_MAY_WRITE: Final = 0o022


def digest_of(flags: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Returns a digest of all settings. None: only the settings code can read them."""
    if may_have_secret_files(environ) or any(flag.startswith(_CONFIG_FLAG) for flag in flags):
        return None
    path = Path(environ.get(_CONFIG_VARIABLE, SETTINGS_FILE))
    try:
        content = read_small_file(path) if os.path.lexists(path) else None
        written = sorted(_times_of_code())
    except (OSError, FileUnreadable):
        return None
    variables = sorted(item for item in environ.items() if item[0].lower().startswith(SETTINGS_PREFIX))
    # Whether they compete with settings. Their values are secret, and are checked each time.
    keys = sorted(name for name in environ if name.startswith(KEY_VARIABLE))
    from hashlib import blake2b  # imported here: without settings nothing needs it, and it loads OpenSSL

    # The version is the same in many commits.
    text = ascii((__version__, sys.version, written, list(flags), variables, keys, content))
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _times_of_code() -> Iterator[int]:
    """Yields when each module of the settings was written. `rglob` takes 2 ms for it. Raises OSError."""
    for folder, _, names in os.walk(_PROGRAM / "settings"):
        for name in names:
            if name.endswith(".py"):
                yield Path(folder, name).stat().st_mtime_ns


def may_have_secret_files(environ: Mapping[str, str]) -> bool:
    """Returns whether secret files give settings, or such a directory cannot be read."""
    folders = [_SECRETS, *map(Path, filter(None, [environ.get("CREDENTIALS_DIRECTORY")]))]
    try:
        names = [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]
    except OSError:
        return True
    return any(name.lower().startswith(SETTINGS_PREFIX) for name in names)


def is_remembered(digest: str, environ: Mapping[str, str]) -> bool:
    """Returns whether settings with this digest were valid."""
    return digest in _digests(_file(environ))


def remember(digest: str, environ: Mapping[str, str]) -> None:
    """Adds the digest of valid settings, and forgets the oldest of many. An error of the system has no effect."""
    file = _file(environ)
    if file is None or digest in (digests := _digests(file)):
        return
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        _make_folder(file.parent)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as output:
                output.write("\n".join([*digests, digest][-_MOST:]))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _file(environ: Mapping[str, str]) -> Path | None:
    """Returns the file of the digests, in the cache directory of the XDG base directory specification."""
    cache, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    base = Path(cache) if cache.startswith("/") else Path(home, ".cache") if home.startswith("/") else None
    return None if base is None else base / "nanonets-proxy" / "valid-settings"


def _digests(file: Path | None) -> list[str]:
    """Returns the digests in the file. A file that is not regular, or that somebody else can write, has none."""
    if file is None:
        return []
    try:
        with open(file, opener=open_without_waiting) as text:
            status = os.fstat(text.fileno())
            is_own = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE
            return text.read(MAX_FILE_BYTES).split() if is_own and stat.S_ISREG(status.st_mode) else []
    except (OSError, ValueError):
        return []


def _make_folder(folder: Path) -> None:
    """Makes a folder and its parent. Raises OSError, also if another user owns one."""
    if not folder.parent.exists():
        _reject_others(folder.parent.parent)
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, exist_ok=True)
        _reject_others(path)


def _reject_others(folder: Path) -> None:
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
