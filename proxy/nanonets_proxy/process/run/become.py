"""Starts a proxy beside a command, and then becomes the command.

States of the process that the user starts:
starting  Has forked the proxy, and waits until the proxy is certain to start, or serves. If the settings and the
          key are known to be valid, it waits for nothing. The socket listens already, and queues connections.
            the proxy ends -> ends with the proxy's exit code; the command never starts
            SIGTERM or SIGINT -> ends with 128 + the number, and the proxy ends too
becoming  Restores its signals, and executes the command.
            the command cannot be executed -> ends with 126 or 127, and the proxy ends too
command   Is the command. Its exit code, signals, terminal and job control need no code here.

`ssh-agent COMMAND` works in the same way (ssh-agent(1)). The proxy (`companion.py`) is no child of the command, as
the command could wait for it, and has a session of its own, so that Ctrl-C reaches only the command.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from nanonets_proxy.core.access.token_text import TOKEN_BYTES, make_token
from nanonets_proxy.process.exit_codes import FAILED, NOT_EXECUTABLE, NOT_FOUND
from nanonets_proxy.process.hardening import deny_inspection, mask_variables
from nanonets_proxy.process.run.companion import Companion, pidfd_of_this_process, run_detached
from nanonets_proxy.process.run.variables import command_variables, hidden_variables

_BACKLOG: Final = 2048


def become(
    command: Sequence[str],
    run_proxy: Callable[[Companion], int],
    *,
    is_sure: bool,
    ignored_signals: Collection[signal.Signals],
) -> int:
    """Starts the proxy by `run_proxy`, and executes `command`. Returns an exit code only if that fails.

    The process must have no other thread. `is_sure`: the settings and the key are known to be valid.
    `ignored_signals`: those of SIGTERM and SIGINT that were ignored at start.
    """
    try:
        listener, (read_end, write_end) = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG), os.pipe()
    except OSError as error:
        return _failed(f"the proxy cannot listen on 127.0.0.1: {error.strerror or error}", FAILED)
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    environ = dict(os.environ)
    deny_inspection()  # the fork inherits it, and the command does not
    mask_variables(hidden_variables(environ))
    companion = Companion(
        listener, make_token(os.urandom(TOKEN_BYTES)), os.getpid(), pidfd_of_this_process(), write_end
    )
    # Some supervisors start programs with SIGCHLD ignored. The system then discards the exit of a child.
    ignores_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL) is signal.SIG_IGN
    try:
        run_detached(companion, run_proxy)
    except OSError as error:
        return _failed(f"no process can be started for the proxy: {error.strerror}", FAILED)
    finally:  # the proxy has its own
        listener.close()
        os.close(write_end)
    hidden: Sequence[str] = ()
    if not is_sure:
        import json  # imported here: nothing else needs it before the command starts

        with os.fdopen(read_end, "rb") as report:
            text = report.readline()  # the proxy may not close the pipe before it serves
        if not text:
            return _failed("the proxy ended before it served", FAILED)
        message = json.loads(text)
        if "exit_code" in message:
            return int(message["exit_code"])
        hidden = message["hidden_variables"]
    if ignores_children:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _restore_signals(ignored_signals)
    return _execute(command, command_variables(environ, companion.take_token(), f"http://{address}", hidden))


def _restore_signals(ignored: Collection[signal.Signals]) -> None:
    """Restores what Python and `cli/main.py` have changed. No signal in between is lost."""
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    for number in stops:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def _execute(command: Sequence[str], variables: dict[str, str]) -> int:
    name = command[0]
    try:
        os.execvpe(name, [*command], variables)  # noqa: S606 - running the user's command is the purpose
    except (FileNotFoundError, NotADirectoryError):
        return _failed(f"{name}: command not found", NOT_FOUND)
    except (OSError, ValueError) as error:
        if not name or (isinstance(error, PermissionError) and not _exists(name, variables)):
            return _failed(f"{name or repr(name)}: command not found", NOT_FOUND)
        reason = error.strerror if isinstance(error, OSError) else error
        return _failed(f"{name}: cannot be executed: {str(reason).lower()}", NOT_EXECUTABLE)


def _exists(name: str, variables: dict[str, str]) -> bool:
    """Returns whether there is such a command. A directory of PATH that may not be searched is an error of exec."""
    return "/" in name or any(os.path.lexists(Path(each, name)) for each in os.get_exec_path(variables))


def _failed(sentence: str, exit_code: int) -> int:
    sys.stderr.write(f"nanonets-proxy: {sentence}\n")
    return exit_code
