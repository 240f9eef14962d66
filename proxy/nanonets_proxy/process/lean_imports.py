"""Hides from the libraries, while they are imported, what they would load and the program never uses."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from typing import Final

_CA_FILE_VARIABLE: Final = "SSL_CERT_FILE"
_HIDDEN_PACKAGE: Final = "rich"
_SELDOM_USED: Final = "asyncio"
_PLUGINS_VARIABLE: Final = "PYDANTIC_DISABLE_PLUGINS"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hides rich and the certificate authorities of the system, and delays asyncio. No other thread may import.

    rich: structlog imports it if it is installed, for tracebacks in colors. The authorities: aiohttp's client loads
    them (SSL_CTX_set_default_verify_paths(3)). Each costs some MiB, and a tenth of the start. asyncio: the settings
    library imports it for one function; the servers use it, which loads it.

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
    sys.meta_path.insert(0, _AtFirstUse)
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        sys.meta_path.remove(_AtFirstUse)
        if is_hidden:
            del sys.modules[_HIDDEN_PACKAGE]
        if ca_file is None:
            del os.environ[_CA_FILE_VARIABLE]
        else:
            os.environ[_CA_FILE_VARIABLE] = ca_file


class _AtFirstUse:
    """Finds a module, and loads it when its first attribute is used."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: object = None) -> ModuleSpec | None:
        if name != _SELDOM_USED:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
