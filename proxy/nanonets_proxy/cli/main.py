"""The entry point. For `serve` and `sandbox`, a child reads the settings while this process imports the servers.

`process/settings_reader.py` has the reasons. If the system allows no further process, this process does both, and
keeps the settings code in memory.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an import would cost every command time
    from nanonets_proxy.app.config import Config

_SERVING_COMMANDS = ("serve", "sandbox")
_HELP_FLAGS = frozenset({"-h", "--help", "--version"})
_CA_FILE_VARIABLE = "SSL_CERT_FILE"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names, by default the process's arguments. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # SIGINT leaves no traceback
    if not _serves(arguments):
        return _run(arguments, _serve)
    from nanonets_proxy.process.settings_reader import SettingsReader

    try:
        reader = SettingsReader(lambda send: _run(arguments, send))
    except OSError:
        return _run(arguments, _serve)
    # Imports the modules of `_serve` while the child reads.
    with _without_ca_file():
        import nanonets_proxy.process.serve  # noqa: F401  # only loads the module

    config = reader.config()
    return config if isinstance(config, int) else _serve(config)


def _serves(arguments: Sequence[str]) -> bool:
    """Returns whether the command runs servers. The default command is `serve`."""
    serves = not arguments or arguments[0].startswith("-") or arguments[0] in _SERVING_COMMANDS
    return serves and _HELP_FLAGS.isdisjoint(arguments)


def _run(arguments: Sequence[str], serve: "Callable[[Config], int]") -> int:
    from nanonets_proxy.cli.commands import run

    return run(arguments, serve)


def _serve(config: "Config") -> int:
    from nanonets_proxy.process.serve import serve

    return serve(config)


@contextmanager
def _without_ca_file() -> Iterator[None]:
    """Hides the system's certificate authorities from OpenSSL (SSL_CTX_set_default_verify_paths(3)).

    aiohttp's client, which the program never uses, loads them at import. That costs 2 MiB and a tenth of the start.
    """
    before = os.environ.get(_CA_FILE_VARIABLE)
    os.environ[_CA_FILE_VARIABLE] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CA_FILE_VARIABLE]
        else:
            os.environ[_CA_FILE_VARIABLE] = before
