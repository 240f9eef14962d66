"""Hides from the libraries, while they are imported, what they would load and the program never uses."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CA_FILE_VARIABLE: Final = "SSL_CERT_FILE"
_HIDDEN_PACKAGE: Final = "rich"
_PLUGINS_VARIABLE: Final = "PYDANTIC_DISABLE_PLUGINS"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hides rich and the certificate authorities of the system. No other thread may import.

    rich: structlog imports it if it is installed, for tracebacks in colors. The authorities: aiohttp's client loads
    them (SSL_CTX_set_default_verify_paths(3)). Each costs some MiB, and a tenth of the start.

    Meanwhile, no garbage is collected: imports make hardly any, and the search takes a twentieth of their time.

    Also turns pydantic's plugins off, for the rest of the process: pydantic would search every installed package
    for them, and they would see the settings, which may hold secrets.
    """
    os.environ[_PLUGINS_VARIABLE] = "__all__"
    ca_file = os.environ.get(_CA_FILE_VARIABLE)
    os.environ[_CA_FILE_VARIABLE] = os.devnull
    is_hidden = _HIDDEN_PACKAGE not in sys.modules
    if is_hidden:
        sys.modules[_HIDDEN_PACKAGE] = None  # type: ignore[assignment]  # as for a package that is not installed
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        if is_hidden:
            del sys.modules[_HIDDEN_PACKAGE]
        if ca_file is None:
            del os.environ[_CA_FILE_VARIABLE]
        else:
            os.environ[_CA_FILE_VARIABLE] = ca_file
