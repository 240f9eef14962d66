"""Remembers which settings were valid, so that the next `run` with the same settings need not wait for their check.

A file in the user's cache directory has a digest of the settings: of flags, variables and the settings file, and of
the program's version. The settings code adds it after it has accepted them, and only if their texts alone make them
valid (`settings/model/groups.py`): none of them is a secret, names a file that may change, or a store of keys.
If the file cannot be read or written, the command only waits longer.
"""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import nanonets_proxy
from nanonets_proxy.process.run.variables import KEY_VARIABLE

SETTINGS_FILE: Final = Path("nanonets-proxy.toml")
SETTINGS_PREFIX: Final = "nanonets_proxy"

_CONFIG_VARIABLE: Final = "NANONETS_PROXY_CONFIG"
_CONFIG_FLAG: Final = "--config"
_MOST: Final = 32
_DIGEST_BYTES: Final = 32
_OTHERS_MAY_WRITE: Final = 0o022


def digest_of(flags: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Returns a digest of all settings, except those in secret files. None: they cannot be read here."""
    if any(flag.startswith(_CONFIG_FLAG) for flag in flags):
        return None
    path = Path(environ.get(_CONFIG_VARIABLE, SETTINGS_FILE))
    try:
        content = path.read_bytes() if path.is_file() else None
        installed_at = Path(nanonets_proxy.__file__).parent.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    variables = sorted(item for item in environ.items() if item[0].lower().startswith(SETTINGS_PREFIX))
    # Whether they compete with settings. Their values are secret, and are checked each time.
    keys = sorted(name for name in environ if name.startswith(KEY_VARIABLE))
    program = (nanonets_proxy.__version__, installed_at, sys.version)
    text = ascii((program, list(flags), variables, keys, content))
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


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
    """Returns the digests in the file. A file that somebody else can write has none."""
    if file is None:
        return []
    try:
        with file.open() as text:
            status = os.fstat(text.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
                return []
            return text.read().split()
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
