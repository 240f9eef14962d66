"""Messages to a server that confirms them late, wrongly or never."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from nanonets_proxy.admission.fleet.bus import publisher as module
from nanonets_proxy.admission.fleet.bus.publisher import Publisher
from support import eventually

pytestmark = pytest.mark.system  # it needs the client of Redis


class Server:
    """Reads commands, and responds only when the test says so."""

    def __init__(self) -> None:
        self.got = b""
        self.writer: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()
        self.unheard: list[str] = []
        self.faults: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while data := await reader.read(65536):
            if b"SETINFO" in data:  # the library tells its name
                writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
            else:
                self.got += data
        writer.close()
        await writer.wait_closed()
        self.ended.set()

    def respond(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, Publisher]]:
    from redis.asyncio import Connection

    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    connection = Connection(host="127.0.0.1", port=port, protocol=2, socket_timeout=None)
    await connection.connect()
    publisher = Publisher(connection, server.unheard.append, lambda error: server.faults.append(str(error)))
    try:
        yield server, publisher
    finally:
        await publisher.stop()
        await connection.disconnect()
        await server.ended.wait()
        listening.close()


async def test_a_message_does_not_wait_for_the_confirmation_of_an_earlier_one() -> None:
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        await eventually.until(lambda: b"first" in server.got)
        publisher.send("b", "to:b", b"second")
        await eventually.until(lambda: b"second" in server.got)
        assert publisher.is_sending
        server.respond(b":1\r\n:0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert server.unheard == ["b"]
        assert server.faults == []


async def test_an_error_for_one_message_does_not_lose_the_next_one() -> None:
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        publisher.send("b", "to:b", b"second")
        await eventually.until(lambda: b"second" in server.got)
        server.respond(b"-NOPERM no\r\n:0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert server.unheard == ["b"]
        assert len(server.faults) == 1


@pytest.mark.parametrize("closes", [False, True])
async def test_a_server_without_a_response_is_a_fault(monkeypatch: pytest.MonkeyPatch, *, closes: bool) -> None:
    monkeypatch.setattr(module, "CONFIRM_S", 60.0 if closes else 0.01)
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        await eventually.until(lambda: b"first" in server.got)
        if closes and server.writer is not None:
            server.writer.close()
        await eventually.until(lambda: len(server.faults) == 1)
        assert not publisher.is_sending
        assert server.unheard == []


async def test_a_message_after_the_server_closed_the_idle_connection_goes_over_a_new_one() -> None:
    """As Redis does with its setting `timeout`."""
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        await eventually.until(lambda: b"first" in server.got)
        server.respond(b":1\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        idle = server.writer
        assert idle is not None
        idle.close()
        await idle.wait_closed()
        await eventually.until(publisher._connection._reader.at_eof)
        server.ended.clear()
        publisher.send("b", "to:b", b"second")
        await eventually.until(lambda: b"second" in server.got)
        server.respond(b":0\r\n")
        await eventually.until(lambda: not publisher.is_sending)
        assert server.unheard == ["b"]
        assert server.faults == []


async def test_a_fault_is_reported_once_also_while_a_confirmation_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        await eventually.until(lambda: b"first" in server.got)

        async def fail(*_: object, **__: object) -> None:
            raise ConnectionError("broken pipe")

        monkeypatch.setattr(publisher._connection, "send_packed_command", fail)
        publisher.send("b", "to:b", b"second")
        await eventually.until(lambda: bool(server.faults))
        with suppress(RuntimeError):  # the connection is closed already
            server.respond(b":1\r\n")
        await eventually.until(lambda: publisher._reader is None)
        assert server.faults == ["broken pipe"]
        assert not publisher.is_sending


async def test_before_the_end_messages_are_confirmed_or_given_up() -> None:
    async with connected() as (server, publisher):
        publisher.send("a", "to:a", b"first")
        await publisher.flush(0.01)
        assert publisher.is_sending
        flushing = asyncio.ensure_future(publisher.flush(60.0))
        await eventually.until(lambda: b"first" in server.got)
        server.respond(b":0\r\n")
        await flushing
        assert server.unheard == ["a"]
