"""The entry point. For `serve` and `sandbox`, a child reads the settings while this process imports the servers.

`process/settings_reader.py` has the reasons. If the system allows no further process, this process does both, and
keeps the settings code in memory.

From its first lines, `main` handles SIGTERM and SIGINT. The kernel drops a signal without a handler if this is
process 1 of a container (pid_namespaces(7)), and the container would run until the engine kills it.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from nanonets_proxy.process.exit_codes import SIGNAL_BASE, USAGE_ERROR

if TYPE_CHECKING:  # an import would cost every command time
    from nanonets_proxy.app.config import Config

_SERVING_COMMANDS = ("serve", "sandbox")
_HELP_FLAGS = frozenset({"-h", "--help", "--version"})
_CA_FILE_VARIABLE = "SSL_CERT_FILE"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names, by default the process's arguments. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    _end_by_signals()
    if not _serves(arguments):
        return _run(arguments, _no_server)
    from nanonets_proxy.process.inheritance import InheritanceUnusable, inherit
    from nanonets_proxy.process.settings_reader import SettingsReader

    try:
        inheritance = inherit()
    except InheritanceUnusable as error:
        sys.stderr.write(f"nanonets-proxy: {error}\n")
        return USAGE_ERROR
    environ = dict(os.environ)  # for reloads and restarts

    def serve(config: "Config") -> int:
        from nanonets_proxy.process.serve import serve
        from nanonets_proxy.process.settings_rereader import SettingsRereader

        return serve(config, SettingsRereader(arguments, environ), inheritance, environ)

    try:
        reader = SettingsReader(lambda send: _run(arguments, send))
    except OSError:
        return _run(arguments, serve)
    # Imports the modules of `_serve` while the child reads.
    with _without_ca_file():
        import nanonets_proxy.process.serve  # noqa: F401  # only loads the module

    config = reader.config()
    return config if isinstance(config, int) else serve(config)


def _end_by_signals() -> None:
    """Ends the process silently with 128 + the number at SIGTERM and SIGINT.

    The image blocks both signals until here (Dockerfile, `env --block-signal`), so that none is lost.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        os._exit(SIGNAL_BASE + number)

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def _serves(arguments: Sequence[str]) -> bool:
    """Returns whether the command runs servers. The default command is `serve`."""
    serves = not arguments or arguments[0].startswith("-") or arguments[0] in _SERVING_COMMANDS
    return serves and _HELP_FLAGS.isdisjoint(arguments)


def _run(arguments: Sequence[str], serve: "Callable[[Config], int]") -> int:
    from nanonets_proxy.cli.commands import run

    return run(arguments, serve)


def _no_server(_: "Config") -> int:
    raise AssertionError("this command serves nothing")


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
