"""A Redis that accepts connections, and stops responding at some moment (`make test-fleet`)."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from fleet.redis_server import RedisServer, redis_server
from nanonets_proxy.admission.fleet.bus import client
from nanonets_proxy.admission.fleet.bus.port import BusError
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from support import eventually
from support.commands.fleet_proxies import PASSWORD
from support.commands.ports import free_port
from support.commands.redis_groups import sentinel_group

pytestmark = pytest.mark.system

COMMANDS = (b"AUTH", b"SUBSCRIBE", b"EVALSHA", b"PUBLISH", b"DEL", b"PING")
"""Each one in the order of a replica's life. `DEL` is in the script that gives the lease back."""


class Relay:
    """Passes everything on until it reads a command. From then on, it passes nothing on."""

    def __init__(self, port: int, command: bytes) -> None:
        self._port = port
        self._command = command
        self.hangs = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pass(reader, ours, self._command), self._pass(theirs, writer, b""))
        except ConnectionError:
            pass  # the bus has closed it
        finally:
            writer.close()
            ours.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: bytes) -> None:
        while data := await reader.read(65536):
            self.hangs |= bool(command) and command in data
            if not self.hangs:
                writer.write(data)
        writer.close()


@asynccontextmanager
async def relay(port: int, command: bytes) -> AsyncIterator[tuple[Relay, int]]:
    made = Relay(port, command)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        yield made, server.sockets[0].getsockname()[1]


def bus_to(url: str) -> tuple[RedisBus, list[str]]:
    bus, lost = RedisBus(FleetPolicy(RedisAddress.parse(url), "a", required=False), "a"), list[str]()
    bus.start(lambda _: None, lost.append, lambda _: None)
    return bus, lost


def tasks_of_buses() -> set["asyncio.Task[object]"]:
    """Returns the tasks that run code of the proxy."""
    return {task for task in asyncio.all_tasks() if "nanonets_proxy" in repr(task)}


async def lead_once(bus: RedisBus) -> None:
    won = await bus.campaign(0)
    assert won is not None
    await bus.renew(won.epoch, 1, b"beat", None)
    bus.send("b", b"message")
    await bus.resign(won.epoch)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_patient", [True, False])
async def test_a_bus_ends_whenever_redis_stops_responding(command: bytes, *, is_patient: bool) -> None:
    """Patient: the bus notices it first. Otherwise it stops at once."""
    with redis_server(PASSWORD) as redis:
        async with relay(redis.port, command) as (between, port):
            bus, lost = bus_to(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
            await eventually.until(lambda: bus.connected or between.hangs)
            if not between.hangs:
                try:
                    await lead_once(bus)
                except BusError as error:
                    assert "Timeout" in str(error) or "closed" in str(error)  # noqa: PT017 - only some commands fail
                if is_patient or command == b"PING":
                    await eventually.until(lambda: bool(lost))
                    assert between.hangs
                    assert not bus.connected
            async with asyncio.timeout(30):
                await bus.stop()
            assert tasks_of_buses() == set()


@pytest.fixture
def _slow_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets redis-py wait for a minute for the server's end of each connection."""
    monkeypatch.setattr(client, "TIMEOUT_S", 60.0)


@pytest.mark.usefixtures("_slow_library")
async def test_a_bus_with_tls_does_not_wait_for_a_server_that_does_not_close(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = ("--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem")
    port = free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", f"{tmp_path}/ca.pem")
    with redis_server(PASSWORD, *options, *files) as redis:
        bus, lost = bus_to(f"rediss://:{PASSWORD}@127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem")
        await eventually.until(lambda: bus.connected)
        redis.signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            while not lost:  # noqa: ASYNC110 - the bus notices it
                await asyncio.sleep(0.01)
        redis.signal(signal.SIGCONT)
        await eventually.until(lambda: bus.connected)
        redis.signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            await bus.stop()
        assert tasks_of_buses() == set()


async def test_a_sentinel_that_hangs_does_not_hide_the_others() -> None:
    with sentinel_group(PASSWORD) as group:
        group.sentinels[0].signal(signal.SIGSTOP)
        bus, _ = bus_to(group.url)
        await eventually.until(lambda: bus.connected)
        for sentinel in group.sentinels[1:]:
            sentinel.signal(signal.SIGSTOP)
        await bus.stop()
        bus, _ = bus_to(group.url)
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            await bus.stop()
        assert tasks_of_buses() == set()


async def test_a_reason_is_never_empty(redis: RedisServer) -> None:
    """A time limit of asyncio has no words of its own."""
    bus, lost = bus_to(redis.url)
    await eventually.until(lambda: bus.connected)
    redis.signal(signal.SIGSTOP)
    try:
        with pytest.raises(BusError, match="TimeoutError: no response"):
            await bus.campaign(0)
        await eventually.until(lambda: lost == [f"TimeoutError: no response (127.0.0.1:{redis.port})"])
    finally:
        redis.signal(signal.SIGCONT)
        await bus.stop()


async def test_a_command_to_an_earlier_server_does_not_break_the_later_connection(redis: RedisServer) -> None:
    """Over TLS, a command to a server that hangs may end only after the bus has found the next one."""
    async with relay(redis.port, b"EVALSHA") as (_, port):
        earlier, _ = bus_to(f"redis://127.0.0.1:{port}/0")
        await eventually.until(lambda: earlier.connected)
        late = asyncio.ensure_future(earlier.campaign(0))
        await asyncio.sleep(0.1)
        bus, lost = bus_to(redis.url)
        await eventually.until(lambda: bus.connected)
        earlier._use, own = bus._use, earlier._use  # as if the bus had found it
        with pytest.raises(BusError, match="no response"):
            await late
        await asyncio.sleep(0.1)
        earlier._use = own
        assert lost == []
        await bus.stop()
        await earlier.stop()
