"""Remembers which settings were valid, so that the next `run` with the same settings need not wait for a check.

A file in the cache directory of the user has a digest of flags, variables and the settings file. `run` adds it
after the settings are found valid, and only if their texts alone make them valid (`settings/model/groups.py`): none
of them is a secret, names a file that may change, or a store of keys.
The digest does not see that the code has changed within one version, which happens only in a checkout. The command
then starts although its proxy ends with an error.
If the file cannot be read or written, the command only waits longer.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nanonets_proxy import __version__
from nanonets_proxy.keys.files import MAX_FILE_BYTES, FileUnreadable, read_small_file
from nanonets_proxy.process.run.variables import KEY_VARIABLE

SETTINGS_FILE: Final = Path("nanonets-proxy.toml")
SETTINGS_PREFIX: Final = "nanonets_proxy"

_SECRETS: Final = Path("/run/secrets")
_CONFIG_VARIABLE: Final = "NANONETS_PROXY_CONFIG"
_CONFIG_FLAG: Final = "--config"
_DIGEST_BYTES: Final = 32
_OTHERS_MAY_WRITE: Final = 0o022


def digest_of(flags: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Returns a digest of all settings. None: only the settings code can read them."""
    if may_have_secret_files(environ) or any(flag.startswith(_CONFIG_FLAG) for flag in flags):
        return None
    path = Path(environ.get(_CONFIG_VARIABLE, SETTINGS_FILE))
    try:
        content = read_small_file(path) if os.path.lexists(path) else None
    except FileUnreadable:
        return None
    variables = sorted(item for item in environ.items() if item[0].lower().startswith(SETTINGS_PREFIX))
    # Whether they compete with settings. Their values are secret, and are checked each time.
    keys = sorted(name for name in environ if name.startswith(KEY_VARIABLE))
    from hashlib import blake2b  # imported here: without settings nothing needs it, and it loads OpenSSL

    text = ascii((__version__, sys.version, list(flags), variables, keys, content))
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


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
    with contextlib.suppress(OSError), open(_open(environ, os.O_RDONLY), "rb") as digests:
        return digest.encode() in digests.read(MAX_FILE_BYTES).split()
    return False


def remember(digest: str, environ: Mapping[str, str]) -> None:
    """Adds the digest of valid settings. A full file begins anew. An error of the system has no effect."""
    if is_remembered(digest, environ):
        return
    line = f"{digest}\n".encode()
    with (
        contextlib.suppress(OSError),
        open(_open(environ, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "wb", buffering=0) as digests,
    ):
        if os.fstat(digests.fileno()).st_size > MAX_FILE_BYTES - len(line):
            digests.truncate(0)
        digests.write(line)


def _open(environ: Mapping[str, str], flags: int) -> int:
    """Opens the file of the digests, which is in the cache directory of the XDG base directory specification.

    Raises OSError, also if there is no such directory, or if the file is not regular or somebody else can write it.
    """
    cache, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    base = Path(cache) if cache.startswith("/") else Path(home, ".cache")
    if not base.is_absolute():
        raise FileNotFoundError(base)
    file = base / "nanonets-proxy" / "valid-settings"
    if flags & os.O_CREAT:
        _make_folder(file.parent)
    handle = os.open(file, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)  # O_NONBLOCK: may be a FIFO
    status = os.fstat(handle)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE or not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise PermissionError(file)
    return handle


def _make_folder(folder: Path) -> None:
    """Makes a folder in the cache directory. Raises OSError, also if another user owns what exists of the path."""
    base = folder.parent
    existing = next(path for path in (folder, base, base.parent) if path.exists() or path == base.parent)
    if existing.lstat().st_uid != os.geteuid():
        raise PermissionError(f"{existing} belongs to another user")
    for path in (base, folder):
        path.mkdir(mode=0o700, exist_ok=True)
