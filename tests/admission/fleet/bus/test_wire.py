"""The login of a connection to Redis, and its losses."""

import asyncio
import socket

import pytest

from nanonets_proxy.admission.fleet.bus.wire import Refused
from nanonets_proxy.core.net.resp import ErrorReply, Reply
from support import eventually
from support.gate.fake_redis import FakeRedis, fake_redis

OK = b"+OK\r\n"


@pytest.mark.parametrize(
    ("user", "words"),
    [("", b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"), ("me", b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n")],
)
async def test_a_connection_logs_in_and_selects_its_database(user: str, words: bytes) -> None:
    async with fake_redis() as redis:
        redis.replies = {b"AUTH": OK, b"SELECT": OK}
        wire = await redis.dial(user, "secret", 3)
        assert redis.got == words + b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
        wire.close()


async def test_a_refused_login_closes_the_connection_and_shows_no_words_of_the_command() -> None:
    """Redis repeats the words of a command that it does not know."""
    async with fake_redis() as redis:
        redis.replies = {b"AUTH": b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n"}
        with pytest.raises(Refused, match=r"^AUTH: ERR$"):
            await redis.dial(password="secret")


@pytest.mark.parametrize("kinds", [b"clients", b"clients + cluster connections"])
async def test_a_full_server_is_told_by_its_words(kinds: bytes) -> None:
    async with fake_redis() as redis:
        redis.replies = {b"AUTH": b"-ERR max number of %b reached\r\n" % kinds}
        with pytest.raises(Refused, match=r"^AUTH: ERR max number of clients"):
            await redis.dial(password="secret")


async def test_an_idle_connection_tells_firewalls_that_it_is_in_use() -> None:
    async with fake_redis() as redis:
        wire = await redis.dial()
        await eventually.until(lambda: redis.writer is not None)
        assert wire._transport is not None
        sock = wire._transport.get_extra_info("socket")
        found = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        wire.close()
    assert found == [1, 30]


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n"])
async def test_a_server_that_hangs_up_during_the_login_is_an_error(says: bytes) -> None:
    async with fake_redis() as redis:
        dialing = asyncio.ensure_future(redis.dial(password="secret"))
        await redis.has_got(b"AUTH")
        redis.respond(says)
        redis.close()
        with pytest.raises((ConnectionResetError, ValueError)):
            await dialing


async def test_a_login_that_is_given_up_closes_the_connection() -> None:
    async with fake_redis() as redis:
        dialing = asyncio.ensure_future(redis.dial(password="secret"))
        await redis.has_got(b"AUTH")
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing


async def _lost(redis: FakeRedis, data: bytes, fails: Exception | None = None) -> tuple[list[Reply], list[str]]:
    """Returns the replies and losses that a connection hears of, up to its end."""
    replies, lost = list[Reply](), list[str]()

    def hear(reply: Reply) -> None:
        replies.append(reply)
        if fails is not None:
            raise fails

    wire = await redis.dial()
    wire.on_reply, wire.on_lost = hear, lambda error: lost.append(str(error))
    await eventually.until(lambda: redis.writer is not None)
    redis.respond(data)
    if fails is None:
        redis.close()
    await eventually.until(lambda: wire.is_closed)
    wire.send(b"too late")
    await asyncio.sleep(0)
    return replies, lost


async def test_a_lost_connection_is_told_once_after_its_last_reply() -> None:
    async with fake_redis() as redis:
        replies, lost = await _lost(redis, b"-NOPERM no\r\n")
        assert replies == [ErrorReply("NOPERM no")]
        assert lost == ["Redis has closed the connection"]


async def test_a_reply_that_cannot_be_used_ends_the_connection() -> None:
    async with fake_redis() as redis:
        replies, lost = await _lost(redis, b":1\r\n:2\r\n", fails=ValueError("of no use"))
        assert replies == [1]
        assert lost == ["of no use"]
