"""Replaces the running process by a new one of the program, without losing a call.

The old process:
SERVING    Serves. SIGUSR2, POST /restart or `nanonets-proxy restart` starts a new process. -> STARTING
STARTING   Serves, while the new process reads its settings and keys, and gets the listening sockets.
             the new process fails, or takes longer than START_S -> SERVING, and the log says why
             the new process is ready -> GIVING
GIVING     Accepts no connection (they wait in the queues of the sockets, which both processes have). Gives the
           gates' limits and waiting requests, and idle connections, to the new process.
             the new process fails -> SERVING, and takes all of it back
             the new process serves -> FINISHING
FINISHING  Serves the requests that it has: those in flight, those that wait (the new process's gates decide over
           them), and the rest of its connections. Then it ends with 0.
             the new process ends -> FINISHING, and the own gates decide again
             SIGTERM or SIGINT -> the drain of `app/program.py`

The new process:
OPENING    Opens what it did not inherit. An error ends it with its exit code, as at any start.
READY      Has told the old process so, and waits for the limits, requests and connections.
             the old process ends or takes too long -> ends with 1
SERVING    Has told the old process so. It is the main process for systemd now.
             the old process ends -> SERVING, without its requests
             SIGTERM or SIGINT -> the drain of `app/program.py`, and then LEAVING
LEAVING    Waits for the end of the old process: systemd sends those that remain a second SIGTERM once the main
           process has ended, and a second signal cuts off requests.
             the old process ends or takes longer than the drain may -> ends with 0

The messages: `successor/messages.py` until the new process serves, then `successor/link.py`.
"""

import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import structlog

from nanonets_proxy.admin.endpoints import RestartResult
from nanonets_proxy.aio.daemon_thread import NoThread, Result, in_daemon_thread, start_daemon_thread
from nanonets_proxy.app.handover import Offer
from nanonets_proxy.app.program import Program
from nanonets_proxy.process.inheritance import LINK_VARIABLE, Inheritance
from nanonets_proxy.process.restart_limits import GIVE_S, START_S
from nanonets_proxy.process.service_manager import ServiceManager
from nanonets_proxy.process.successor.container import ends_container
from nanonets_proxy.process.successor.launch import Launched, launch
from nanonets_proxy.process.successor.link import Link
from nanonets_proxy.process.successor.messages import PeerLost, receive_document, send_document
from nanonets_proxy.server.listeners import opened_for

_END_S: Final = 5.0
_SHOWN_LINES: Final = 5
_STDERR: Final = 2
_ADVICE: Final = "remove the cause and restart again; this process serves as before, with its release and settings"


class Restart:
    """Call it to replace this process."""

    def __init__(
        self, program: Program, secrets: Mapping[str, str], manager: ServiceManager, *, is_successor: bool
    ) -> None:
        """`secrets`: the variables of the start that may hold secrets, which the environment no longer has.

        `is_successor`: a restart has started this process. So the container did not end with its predecessor, and
        the process above has only adopted it.
        """
        self._program = program
        self._secrets = secrets
        self._manager = manager
        self._is_successor = is_successor
        self._is_running = False
        self._link: Link | None = None
        """The link to the process that has replaced this one."""
        self._log = structlog.get_logger()

    def close(self) -> None:
        """Ends the link to the successor, which then decides alone. Call it last."""
        if self._link is not None:
            self._link.close()

    async def __call__(self) -> RestartResult:
        """Returns when the new process serves, or why this process goes on."""
        if fault := self._reason_against():
            self._log.warning("restart_rejected", reason=fault)
            return RestartResult(fault, 0)
        self._is_running = True
        try:
            return await self._replace()
        finally:
            self._is_running = False

    def _reason_against(self) -> str | None:
        if self._is_running:
            return "a restart is in progress"
        if self._program.is_stopping:
            return "the process stops, or has been replaced"
        if self._program.has_sandbox:
            return "the simulated API of sandbox = true runs in this process"
        if not self._is_successor and ends_container(os.getpid()):
            return "the container may end with this process; start a new container"
        return None

    def _failed(self, reason: str) -> RestartResult:
        # A signal gets no response, and a start after a crash would fail as well. So the alert lasts.
        alerts = self._program.environments[0].alerts
        alerts.report("restart_failed", _ADVICE, lasting=True, log_always=True, reason=reason)
        return RestartResult(reason, 0)

    async def _replace(self) -> RestartResult:
        try:
            link, their_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return self._failed(f"no process could be started: {error.strerror}")
        with link, their_end:
            env = {**os.environ, LINK_VARIABLE: str(their_end.fileno())}
            try:
                process = await in_daemon_thread(lambda: launch(_command(), env, their_end.fileno()))
            except OSError as error:
                return self._failed(f"no process could be started: {error.strerror}")
            except (PeerLost, NoThread) as error:
                return self._failed(f"no process could be started: {error}")
            their_end.close()
            self._log.info("restart_began", pid=process.pid)
            try:
                errors = _ErrorOutput(process.stderr)
                ready = await in_daemon_thread(lambda: self._introduce(link))
                await self._give(link, ready["upstreams"], process)
            except NoThread as error:
                process.kill()
                return self._failed(str(error))
            except PeerLost as error:
                code = await _in_thread_or_here(process.end)
                text = await _in_thread_or_here(errors.text)
                return self._failed(text or f"the new process ended with code {code}: {error}")
        return RestartResult(None, process.pid)

    def _introduce(self, link: socket.socket) -> Any:
        """Gives the new process its sockets and secrets, and waits until it is ready."""
        link.settimeout(START_S)
        sockets = [sock for own in self._program.handover.listening.values() for sock in own.sockets]
        opened = [opened_for(sock) for sock in sockets]
        document = {
            "secrets": dict(self._secrets),
            "listening": [None if own is None else [own.setting, own.listener] for own in opened],
        }
        send_document(link, document, [*(sock.fileno() for sock in sockets), _STDERR])
        return receive_document(link)[0]

    async def _give(self, link: socket.socket, upstreams: Mapping[str, str], process: Launched) -> None:
        """Gives all to the new process, and finishes. Raises PeerLost or NoThread, and serves as before then."""
        handover = self._program.handover
        messages = Link(handover.receive_from_successor, handover.go_on_alone)
        offer = handover.give(upstreams, messages.send)
        try:
            await in_daemon_thread(lambda: _offer(link, offer))
        except (PeerLost, NoThread):
            await handover.take_back()
            raise
        await _in_thread_or_here(process.let_go)
        self._manager.replaced_by(process.pid)
        with contextlib.suppress(PeerLost):  # it serves already
            await _in_thread_or_here(lambda: send_document(link, {}))
        self._log.info("replaced", pid=process.pid)
        handover.let_go()
        self._link = messages
        await messages.start(link.dup())
        self._program.finish()


async def _in_thread_or_here(function: Callable[[], Result]) -> Result:
    """As `in_daemon_thread`, for a call that must happen: it holds up the event loop if no thread can start."""
    try:
        return await in_daemon_thread(function)
    except NoThread:
        return function()


def _offer(link: socket.socket, offer: Offer) -> None:
    """Blocks until the new process serves. Raises PeerLost."""
    link.settimeout(GIVE_S)
    send_document(link, offer.document, [sock.fileno() for sock in offer.connections])
    receive_document(link)


def _command() -> Sequence[str]:
    """Returns the command line of this process. A script is started by its own name: after an upgrade, that may be
    another file with another interpreter."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" and os.access(script, os.X_OK):
        return [str(script), *sys.argv[1:]]
    return [sys.executable, *sys.orig_argv[1:]]


class _ErrorOutput:
    """Copies the standard error of the new process to that of this one, and keeps the last lines. Raises NoThread.

    Once the new process serves, it writes to the standard error of this process itself.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._source = source
        try:
            self._thread = start_daemon_thread(self._copy, "error-output")
        except NoThread:
            source.close()
            raise

    def text(self) -> str:
        """Returns the last lines. Blocks until the end of the output, or for some seconds.

        Call it after the end of the process. A process that it has started can keep the output open.
        """
        self._thread.join(_END_S)
        return "; ".join(line.removeprefix("nanonets-proxy: ") for line in self._lines)

    def _copy(self) -> None:
        with self._source as lines:
            for line in lines:
                self._lines.append(line.decode("utf-8", "replace").strip())
                with contextlib.suppress(OSError):
                    os.write(_STDERR, line)


async def _in_thread(function: Callable[[], Result]) -> Result:
    """As `in_daemon_thread`. Raises PeerLost also if no thread can start."""
    try:
        return await in_daemon_thread(function)
    except NoThread as error:
        raise PeerLost(str(error)) from None


class Succession:
    """The new process's side."""

    def __init__(self, inheritance: Inheritance, program: Program) -> None:
        assert inheritance.link is not None
        self._link = inheritance.link
        self._stderr = inheritance.stderr
        self._program = program
        handover = program.handover
        self._messages = Link(handover.receive_from_predecessor, self._lose)
        self._document: Mapping[str, Any] = {}
        self._connections: list[socket.socket] = []

    async def take_gates(self) -> None:
        """Says that this process is ready, and takes the limits and requests. Raises PeerLost."""
        handover = self._program.handover
        await _in_thread(lambda: send_document(self._link, {"upstreams": handover.upstreams}))
        self._document, files = await _in_thread(lambda: receive_document(self._link))
        self._connections = [socket.socket(fileno=file) for file in files]
        try:
            handover.take_gates(self._document, self._messages.send, self._messages.leave)
        except (ValueError, KeyError, TypeError) as error:
            raise PeerLost(f"its limits are unusable: {error}") from None

    async def take_connections(self) -> None:
        """Follows the start of the program. Returns when this process is the main one. Raises PeerLost."""
        await self._program.handover.take_connections(self._document["connections"], self._connections)
        os.dup2(self._stderr, _STDERR)
        os.close(self._stderr)
        await _in_thread(lambda: send_document(self._link, {}))
        with contextlib.suppress(PeerLost):  # it ended just now
            await _in_thread_or_here(lambda: receive_document(self._link))
        await self._messages.start(self._link)

    def close(self) -> None:
        """Ends the link to the predecessor, which then decides alone. Call it last."""
        self._messages.close()

    def _lose(self) -> None:
        self._program.handover.lose_predecessor()
        self.close()
