"""The process from which the servers of a session of pytest are forked, seen from pytest.

States:
running  Starts and ends servers.
           pytest ends, in whatever way -> the socket closes, and the process ends all servers and itself
stopped  The session has ended.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

_STOP_S: Final = 30.0
# Settings are read from variables in any case, and from the credentials of systemd.
_OWN_VARIABLES: Final = ("NANONETS", "CREDENTIALS_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Server:
    """A started server: the address it listens on, or the reason why it does not."""

    pid: int
    address: str
    fault: str


class TemplateProcess:
    """A context manager. The servers see none of the variables and files that configure a proxy of the user."""

    def __init__(self) -> None:
        own, theirs = socket.socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="nanonets-proxy-")
        self._socket = own
        self._responses = own.makefile("r")
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a module of this package
                # -P: a module of the user's folder must not replace one of Python's.
                [sys.executable, "-P", "-m", "nanonets_proxy.pytest_plugin.template", str(theirs.fileno())],
                env={
                    name: value for name, value in os.environ.items() if not name.upper().startswith(_OWN_VARIABLES)
                },
                cwd=self._folder.name,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C ends pytest, and pytest ends this process
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._responses.close()
        self._socket.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def start(self, arguments: Sequence[str], key: str | None = None) -> Server:
        """Runs a serving command of the program, and waits until it serves or has ended."""
        return Server(**self._ask({"arguments": list(arguments), "key": key}))

    def end(self, server: Server) -> None:
        """Ends a server at once."""
        self._ask({"end": server.pid})

    def _ask(self, request: object) -> Any:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            response = self._responses.readline()
        except ConnectionError:
            response = ""
        if not response:
            raise RuntimeError(f"the process of the Nanonets servers ended with code {self._process.wait(_STOP_S)}")
        return json.loads(response)
