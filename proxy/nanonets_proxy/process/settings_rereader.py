"""Reads the settings again, in a new process (`cli/read_again.py`), with the arguments and variables of the start.

A fork would copy the keys and could inherit a lock of another thread, so this starts a new interpreter. It ends
after a second or two, and its memory returns to the system. Its own environment is empty. The serving process keeps
the environment of the start for it, except the API keys and Vault's token: a reload changes no source of keys.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nanonets_proxy.aio.daemon_thread import NoThread, in_daemon_thread
from nanonets_proxy.app.config import GivenValues, ServeConfig
from nanonets_proxy.app.reloading import NewSettings, SettingsUnusable
from nanonets_proxy.keys.source import is_of_key_source

TIME_LIMIT_S: Final = 30.0

# The process imports the same modules as this one. It gets no variables: they may hold secrets.
_CODE: Final = "import sys; sys.path[:] = sys.argv[1:]; from nanonets_proxy.cli.read_again import main; main()"


@dataclass(frozen=True, slots=True)
class Request:
    """The request to the reading process. `given` are the values in force."""

    arguments: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    given: GivenValues = field(repr=False)


class SettingsRereader:
    """Call it with the configuration in force."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Takes the command line and the environment of the start."""
        self._arguments = list(arguments)
        self._environ = {name: value for name, value in environ.items() if not is_of_key_source(name)}

    async def __call__(self, running: ServeConfig) -> NewSettings:
        """Returns the new settings, compared with those of `running`. Raises SettingsUnusable."""
        request = pickle.dumps(Request(self._arguments, self._environ, running.given))
        try:
            return await in_daemon_thread(lambda: _ask(request))
        except NoThread as error:
            raise SettingsUnusable(f"{error} to read them") from None


def _ask(request: bytes) -> NewSettings:
    """Runs the reading process until it ends. Raises SettingsUnusable."""
    try:
        process = subprocess.Popen(  # noqa: S603  # this interpreter, with constant arguments
            [sys.executable, "-I", "-c", _CODE, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,  # Ctrl-C on a terminal must not end a reading
        )
    except OSError as error:
        raise SettingsUnusable(f"no process could be started to read them: {error.strerror}") from None
    with process:
        try:
            sent, _ = process.communicate(request, TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise SettingsUnusable(f"reading them took longer than {TIME_LIMIT_S:g} s") from None
    if process.returncode:
        raise SettingsUnusable(f"the process that read them ended with code {process.returncode}")
    result: NewSettings | Sequence[str] = pickle.loads(sent)  # noqa: S301  # only the child writes to the pipe
    if not isinstance(result, NewSettings):
        raise SettingsUnusable("; ".join(result))
    return result
