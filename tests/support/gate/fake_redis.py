"""A server that reads the commands of a fleet's connections, and responds only when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from nanonets_proxy.admission.fleet.bus.wire import Wire, connect
from nanonets_proxy.core.net.redis_address import RedisAddress
from support import eventually


@dataclass
class FakeRedis:
    port: int = 0
    replies: dict[bytes, bytes] = field(default_factory=dict)
    """Sent after each command that has these bytes."""
    got: bytes = b""
    writer: asyncio.StreamWriter | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection has ended."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self.got += data
                for command, reply in self.replies.items():
                    if command in data:
                        writer.write(reply)
        writer.close()
        self.ended.set()

    async def dial(self, user: str = "", password: str = "", database: int = 0) -> Wire:
        host = ("127.0.0.1", self.port)
        return await connect(RedisAddress((host,), user=user, password=password, database=database), host, None)

    async def has_got(self, text: bytes) -> None:
        await eventually.until(lambda: text in self.got)

    def respond(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def close(self) -> None:
        assert self.writer is not None
        self.writer.close()


@asynccontextmanager
async def fake_redis() -> AsyncIterator[FakeRedis]:
    """Listens during the block. Each connection must have ended by its end."""
    redis = FakeRedis()
    async with await asyncio.start_server(redis.serve, "127.0.0.1", 0) as server:
        redis.port = server.sockets[0].getsockname()[1]
        yield redis
        if redis.writer is not None:
            await redis.ended.wait()
