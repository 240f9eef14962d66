"""Runs the real proxy in the test's process, and fails the test if the proxy leaves anything behind."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web_protocol

import nanonets_proxy
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.app.config import EnvironmentConfig, ServeConfig
from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.app.program import Program
from nanonets_proxy.app.shutdown import Shutdown
from nanonets_proxy.app.usage_ledger import UsageLedger
from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.keys.source import BoundSource, EnvironmentKey, InitialKeys, KeySource
from nanonets_proxy.server.connection.caller_connection import CallerConnection
from nanonets_proxy.server.connection.flow_control import MOST_AHEAD_BYTES
from nanonets_proxy.settings import LoadedSettings, Settings, configure
from nanonets_proxy.telemetry.redaction import Redactor
from nanonets_proxy.telemetry.writer import LineWriter
from support.eventually import WAIT_S, until
from support.raw_caller import RawCaller

KEY = "sk-test-0123456789"
VIA = b"Via: 1.1 nanonets-proxy"
AUTHORIZATION = b"Authorization: Basic c2stdGVzdC0wMTIzNDU2Nzg5Og=="

_PROGRAM_FOLDERS = (
    nanonets_proxy.__file__.removesuffix("__init__.py"),
    web_protocol.__file__.removesuffix("web_protocol.py"),
)
_NO_LOG = LineWriter(io.BytesIO(), bytes)


class RunningProxy:
    """A started proxy, and the state that tests check."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.proxy = program.environments[0]
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return self.proxy.listening.addresses[0]

    @property
    def admin_address(self) -> str:
        return self.program.admin_listening.addresses[0]

    @property
    def room(self) -> WaitingRoom:
        """The waiting room of a proxy without coordination."""
        room = self.proxy._room
        assert isinstance(room, WaitingRoom)
        return room

    @property
    def connections(self) -> list[CallerConnection]:
        return list(self.proxy._server._caller_connections())

    @property
    def waiting(self) -> int:
        return self.proxy._gate.waiting

    @property
    def in_flight(self) -> int:
        return self.proxy._gate.in_flight

    @property
    def kept_bytes(self) -> int:
        """Bytes of request bodies that are kept to be sent again, in memory and on disk."""
        return self.proxy._upstream.bodies.memory_bytes + self.proxy._upstream.bodies.spool_bytes

    @property
    def spool_bytes(self) -> int:
        return self.proxy._upstream.bodies.spool_bytes

    @property
    def unread_ahead_bytes(self) -> int:
        """Bytes of request bodies that the server has read ahead and no request has consumed."""
        return MOST_AHEAD_BYTES - self.proxy._server._ahead.free_bytes

    async def caller(self) -> RawCaller:
        return await RawCaller.connect(self.address)

    @asynccontextmanager
    async def callers(self, count: int) -> AsyncIterator[list[RawCaller]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(await self.caller()) for _ in range(count)]

    def stop(self, drain_timeout_s: float = WAIT_S) -> "asyncio.Task[None]":
        """Starts draining, and returns the task that completes when the proxy has stopped."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self.program.stop(drain_timeout_s))
        return self._stopping

    async def check_idle(self) -> None:
        """Waits until all permits are settled, no caller waits, and no body is kept."""
        await until(lambda: (self.in_flight, self.waiting, self.kept_bytes) == (0, 0, 0))


def serve_config(**overrides: Any) -> ServeConfig:
    """Returns a test's configuration: free ports, no retries, and time limits that a busy machine keeps."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "max_wait": "10s",
        "idle_timeout": "60s",
        "first_byte_timeout": "60s",
        "connect_timeout": "60s",
        "retries": 0,
    }
    return configure.serve_config(LoadedSettings(Settings(**values | overrides), {}), None, {})


def with_upstream(config: EnvironmentConfig, origin: Origin) -> EnvironmentConfig:
    """Returns a copy for another upstream."""
    return replace(config, upstream_name=str(origin), dial=replace(config.dial, origin=origin))


def program(origin: Origin, source: KeySource | None = None, **overrides: Any) -> Program:
    """Returns a program with one environment in front of `origin`. Without `source`, its key is `KEY`."""
    source = source or EnvironmentKey(ApiKey.parse(KEY, "test"))
    own = serve_config(**overrides)
    config = with_upstream(own.environments[0], origin)
    usage = None if own.ledger is None else UsageLedger(own.ledger)
    redactor = Redactor()
    bound = BoundSource(source, config.audience)
    environment = Environment(config, InitialKeys(bound, bound.read()), redactor, usage)
    return Program(own, [environment], Shutdown(), usage, redactor=redactor, log_writer=_NO_LOG)


@asynccontextmanager
async def running_proxy(
    origin: Origin, source: KeySource | None = None, **overrides: Any
) -> AsyncIterator[RunningProxy]:
    """Runs the program during the block, and checks afterwards that nothing is left."""
    running = RunningProxy(program(origin, source, **overrides))
    running.program.open()
    await running.program.start()
    try:
        yield running
    finally:
        # Exchanges that the test left open end when their callers have closed.
        await running.stop(1.0)
    await running.check_idle()
    assert not running.room._futures
    assert not running.unread_ahead_bytes
    await until(lambda: not program_tasks())


def program_tasks() -> list["asyncio.Task[Any]"]:
    """Returns the tasks that run code of the program or of its server library."""
    tasks = []
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename.startswith(_PROGRAM_FOLDERS):
            tasks.append(task)
    return tasks
