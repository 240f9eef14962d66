"""The entry: which process reads the settings, and which one serves.

Who serves does not read. The command line, pydantic and the settings take a fifth of the memory of a serving
process, and are needed for a moment: a child reads, and sends what the settings come to, while this process imports
the servers. Where the system gives no further process, this one does both, and what it has read stays in memory.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no command needs all of it
    from nanonets_proxy.app.config import Config

_SERVING = ("serve", "sandbox")
_ASKING = frozenset({"-h", "--help", "--version"})
_AUTHORITIES = "SSL_CERT_FILE"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (by default the process's arguments) names; gives the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not _serves(arguments):
        return _run(arguments, _serve)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who stops it now wants no traceback
    from nanonets_proxy.process.settings_reader import SettingsReader

    try:
        reader = SettingsReader(lambda send: _run(arguments, send))
    except OSError:
        return _run(arguments, _serve)
    # What `_serve` needs, while the child reads.
    with _no_authorities():
        import nanonets_proxy.process.serve  # noqa: F401

    config = reader.config()
    return config if isinstance(config, int) else _serve(config)


def _serves(arguments: Sequence[str]) -> bool:
    """Without a command, it is to serve."""
    serves = not arguments or arguments[0].startswith("-") or arguments[0] in _SERVING
    return serves and _ASKING.isdisjoint(arguments)


def _run(arguments: Sequence[str], serve: "Callable[[Config], int]") -> int:
    from nanonets_proxy.cli.commands import run

    return run(arguments, serve)


def _serve(config: "Config") -> int:
    from nanonets_proxy.process.serve import serve

    return serve(config)


@contextmanager
def _no_authorities() -> Iterator[None]:
    """aiohttp's client, which nobody uses here, loads the system's certificate authorities as it is imported: for a
    tenth of the whole start, and 2 MiB. OpenSSL is shown none meanwhile (SSL_CTX_set_default_verify_paths(3))."""
    before = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_AUTHORITIES]
        else:
            os.environ[_AUTHORITIES] = before
