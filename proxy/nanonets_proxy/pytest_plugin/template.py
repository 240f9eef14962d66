"""The process from which the servers of a session of pytest are forked: `python -m ... FD`.

A server costs half a second of CPU time to import, and a fork of this process a fiftieth of that. The process gets
its requests over a socket, one JSON document on each line. When the socket closes, it ends all servers and itself.
"""

import contextlib
import ctypes
import gc
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import nanonets_proxy.cli.commands
import nanonets_proxy.process.serve
import nanonets_proxy.sandbox.app  # noqa: F401 - loaded for the forks
from nanonets_proxy.cli.main import main
from nanonets_proxy.keys.source import ignore_engine_secrets

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_STARTED: Final = ("started", "sandbox_started")
_STDOUT, _STDERR = 1, 2


def run(requests: socket.socket) -> None:
    """Responds to requests until the other end closes."""
    running: dict[int, Path] = {}
    try:
        with requests, requests.makefile("r") as lines:
            for line in lines:
                request = json.loads(line)
                if "end" in request:
                    _end(request["end"], running)
                    response: Any = {}
                else:
                    response = _start(request["arguments"], request["key"], running)
                requests.sendall(json.dumps(response).encode() + b"\n")
    except ConnectionError:
        pass  # pytest was killed
    finally:
        for pid in list(running):
            _end(pid, running)


def _end(pid: int, running: dict[int, Path]) -> None:
    if pid in running:
        folder = running.pop(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _start(arguments: Sequence[str], key: str | None, running: dict[int, Path]) -> Any:
    """Returns the response: the server's process and address, or the sentences of its standard error.

    The server has a working directory of its own, for relative paths among its settings.
    """
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    log, log_end = os.pipe()
    template = os.getpid()
    with os.fdopen(log, "rb") as lines, tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if not pid:
            _serve(arguments, key, (log_end, errors.fileno()), folder, template)
        os.close(log_end)
        running[pid] = folder
        for line in lines:
            event = json.loads(line)
            if event["event"] in _STARTED:
                return {"pid": pid, "address": event["listen"][0], "fault": ""}
        errors.seek(0)
        fault = errors.read().decode(errors="replace").strip()
    return {"pid": pid, "address": "", "fault": fault or "the server ended before it served"}


def _serve(
    arguments: Sequence[str], key: str | None, output: tuple[int, int], folder: Path, template: int
) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != template:
                os._exit(code)
        os.dup2(output[0], _STDOUT)
        os.dup2(output[1], _STDERR)
        os.closerange(_STDERR + 1, 256)
        if key is not None:
            os.environ["NANONETS_API_KEY"] = key
        code = main(arguments)
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    # Otherwise a garbage collection in a fork would copy the memory of all loaded modules.
    gc.collect()
    gc.freeze()
    ignore_engine_secrets()
    run(socket.socket(fileno=int(sys.argv[1])))
