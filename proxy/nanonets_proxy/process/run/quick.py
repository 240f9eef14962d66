"""Tells cheaply whether the settings and the key are certainly valid, so that the command need not wait for them.

The code of the settings takes several tenths of a second to load. It has nothing to find if there is no setting, as
all defaults are valid, or if it has accepted the same settings before (`remembered.py`). The key in its variable or
file is checked here each time.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nanonets_proxy.core.access.token_text import is_caller_token
from nanonets_proxy.core.keys.key_mistakes import fault_of
from nanonets_proxy.keys.files import FileUnreadable, read_small_file
from nanonets_proxy.process.run.remembered import (
    SETTINGS_FILE,
    SETTINGS_PREFIX,
    digest_of,
    is_remembered,
    may_have_secret_files,
)
from nanonets_proxy.process.run.variables import KEY_VARIABLE

PYTHON_PARSER: Final = "AIOHTTP_NO_EXTENSIONS"
"""The variable that has aiohttp parse in Python. Its parser is less strict, so `serve` ends with an error then."""

_FILE_VARIABLE: Final = f"{KEY_VARIABLE}_FILE"
_TEMPORARY: Final = "/tmp"  # noqa: S108 - only asks whether bodies could be copied there


def is_surely_valid(flags: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Returns whether all settings are known to be valid, and one key can be used.

    False: only the settings code can tell.
    """
    if "TMPDIR" in environ or environ.get(PYTHON_PARSER) or not os.access(_TEMPORARY, os.W_OK | os.X_OK):
        return False
    return _has_key(environ) and (_has_no_setting(flags, environ) or _are_remembered(flags, environ))


def _has_no_setting(flags: Sequence[str], environ: Mapping[str, str]) -> bool:
    variables = [name for name in environ if name.lower().startswith(SETTINGS_PREFIX)]
    return not (flags or variables or os.path.lexists(SETTINGS_FILE) or may_have_secret_files(environ))


def _are_remembered(flags: Sequence[str], environ: Mapping[str, str]) -> bool:
    digest = digest_of(flags, environ)
    return digest is not None and is_remembered(digest, environ)


def _has_key(environ: Mapping[str, str]) -> bool:
    key, file = environ.get(KEY_VARIABLE), environ.get(_FILE_VARIABLE)
    if (key is None) == (file is None):
        return False
    try:
        text = (read_small_file(Path(file or "")) if key is None else key).strip()
    except FileUnreadable:
        return False
    return fault_of(text) is None and not is_caller_token(text.encode())
