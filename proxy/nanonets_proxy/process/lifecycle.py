"""The start of a program with what it inherits, and its signals SIGHUP and SIGUSR2, as systemd is told of them."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from nanonets_proxy.admin.endpoints import RestartResult
from nanonets_proxy.app.program import Program
from nanonets_proxy.app.shutdown import Shutdown
from nanonets_proxy.process.inheritance import Inheritance
from nanonets_proxy.process.restart import Restart, Succession
from nanonets_proxy.process.service_manager import ServiceManager


@dataclass(frozen=True, slots=True)
class Start:
    """What the process got at its start: the inheritance, and the variables that may hold secrets."""

    inheritance: Inheritance
    secrets: Mapping[str, str] = field(repr=False)


class Lifecycle:
    """Call `start()`, `serving()` once the start is in the log, and `close()` once the program has ended."""

    def __init__(self, program: Program, shutdown: Shutdown, start: Start) -> None:
        self._program = program
        self._shutdown = shutdown
        self._inheritance = start.inheritance
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop holds only weak references
        is_successor = start.inheritance.link is not None
        self._manager = ServiceManager(os.environ, is_successor=is_successor)
        self._restart = Restart(program, start.secrets, self._manager, is_successor=is_successor)
        self._succession: Succession | None = None
        self._serving = asyncio.Event()
        program.restart = self._restart_once_serving

    async def start(self) -> None:
        """Starts the program: by itself, or in place of its predecessor. Raises ListenFailed or PeerLost."""
        program, inheritance = self._program, self._inheritance
        # A signal during the start must not end the process.
        if inheritance.companion is None:
            self._on_signal(signal.SIGHUP, self._reload)
            self._on_signal(signal.SIGUSR2, self._restart_once_serving)
        program.open(inheritance.sockets)
        succession = self._succession = None if inheritance.link is None else Succession(inheritance, program)
        if succession is not None:
            await succession.take_gates()
        await program.start()
        if succession is not None:
            await succession.take_connections()
        inheritance.sockets.close_unused()

    def serving(self) -> None:
        """Says to systemd that the program serves, and later that it stops."""
        self._serving.set()
        self._manager.store(sock for own in self._program.handover.listening.values() for sock in own.sockets)
        self._manager.ready()
        self._run(self._say_when_stopping())
        if self._inheritance.companion is not None:
            loop = asyncio.get_running_loop()
            self._inheritance.companion.serving(
                lambda: loop.call_soon_threadsafe(self._shutdown.request, "the end of the command")
            )

    def close(self) -> None:
        """Ends the links to the processes before and after this one."""
        self._restart.close()
        if self._succession is not None:
            self._succession.close()

    async def _say_when_stopping(self) -> None:
        await self._shutdown.requested()
        if not self._shutdown.replaced.is_set():
            self._manager.stopping()

    async def _reload(self) -> None:
        self._manager.reloading()
        try:
            await self._program.reload()
        finally:
            self._manager.ready()

    async def _restart_once_serving(self) -> RestartResult:
        await self._serving.wait()
        return await self._restart()

    def _on_signal(self, number: int, act: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        asyncio.get_running_loop().add_signal_handler(number, lambda: self._run(act()))

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
