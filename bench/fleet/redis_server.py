"""A real Redis server on loopback, which a test or a benchmark may stop, kill and wipe."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from support.commands.ports import free_port

_START_S = 30.0


def _program() -> str:
    """Returns the server's program: that of the variable REDIS_PROGRAM, or else Redis, or else Valkey."""
    chosen = os.environ.get("REDIS_PROGRAM")
    names = [chosen] if chosen else ["redis-server", "valkey-server"]
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise FileNotFoundError(f"{names[0]} is missing: apt-get install redis-server, or set REDIS_PROGRAM")
    return program


class RedisServer:
    """A server without persistence. `start` after `kill` begins with an empty database."""

    def __init__(self, folder: Path, password: str = "", *options: str) -> None:
        self._program = _program()
        self._folder = folder
        self._password = password
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def arguments(self) -> list[str]:
        """Returns the arguments of the program."""
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        if self._password:
            arguments += ["--requirepass", self._password, "--masterauth", self._password]
        return [*arguments, *self.options]

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, *self.arguments()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + _START_S
        while True:
            try:
                if self.ask("PING").startswith((b"+PONG", b"-LOADING")):
                    return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self._program} does not start")
            time.sleep(0.02)

    def ask(self, *words: str) -> bytes:
        """Runs one command, and returns the start of the response."""
        with socket.create_connection(("127.0.0.1", self.port), 2.0) as sock:
            sock.settimeout(2.0)
            for command in ([("AUTH", self._password)] if self._password else []) + [words]:
                parts = [f"*{len(command)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in command)]
                sock.sendall("".join(parts).encode())
                answer = sock.recv(65536)
            if answer.startswith((b"-ERR", b"-NOAUTH", b"-WRONGPASS")):
                raise ValueError(answer.decode())
            return answer

    @property
    def master(self) -> "RedisServer":
        """This server: one alone is its own master."""
        return self

    @property
    def pid(self) -> int:
        """The process of the server, which must run."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Sends a signal, such as SIGSTOP."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Ends the server at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(password: str = "", *options: str) -> Iterator[RedisServer]:
    """Runs a server during the block."""
    with TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(Path(folder), password, *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
