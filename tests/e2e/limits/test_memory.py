"""The memory of the real process with large bodies and slow callers."""

import asyncio
import contextlib
import platform
from pathlib import Path
from typing import Final

import pytest

from support.commands.process import proxy_to
from support.eventually import stable, until
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream, responding

MIB: Final = 2**20
SIZE: Final = 200 * MIB
CALLERS: Final = 12
SLACK: Final = 6 * MIB
"""The process's own growth: late imports and the allocator."""
_PIECE: Final = bytes(range(256)) * 1024


class Source:
    """Responds to every request with SIZE bytes, as fast as the proxy reads them."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                for _ in range(SIZE // len(_PIECE)):
                    writer.write(_PIECE)
                    await writer.drain()
                    self.sent_bytes += len(_PIECE)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy closed the connection after its caller left
        finally:
            writer.close()
            self.open -= 1


def _peak_bytes(pid: int) -> int:
    """Returns the peak resident memory (proc(5), VmHWM)."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


async def test_a_slow_caller_slows_the_upstream_and_costs_at_most_a_mebibyte() -> None:
    source = Source()
    server = await asyncio.start_server(source.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with proxy_to(f"http://127.0.0.1:{port}", is_forked=False) as proxy:
        address = proxy.url.removeprefix("http://")
        async with await RawCaller.connect(address) as first:
            await first.send(request(b"GET", b"/warm"))
            await _read_all(first)
            before = _peak_bytes(proxy.process.pid)
            source.sent_bytes = 0
            slow = [await RawCaller.connect(address) for _ in range(CALLERS)]
            for caller in slow:
                await caller.send(request(b"GET", b"/slow"))
                await caller.head()
            await stable(lambda: source.sent_bytes, for_s=0.3)
            assert source.sent_bytes < CALLERS * SIZE / 4
            assert _peak_bytes(proxy.process.pid) - before < CALLERS * MIB + SLACK
            await _read_body(slow[0])
            for caller in slow:
                caller.reset()
            await first.send(request(b"GET", b"/again"))
            await _read_all(first)
            assert _peak_bytes(proxy.process.pid) - before < CALLERS * MIB + SLACK
    server.close()
    await until(lambda: source.open == 0)


async def _read_all(caller: RawCaller) -> None:
    await caller.head()
    await _read_body(caller)


async def _read_body(caller: RawCaller) -> None:
    for _ in range(SIZE // len(_PIECE)):
        assert await caller.read(len(_PIECE)) == _PIECE


async def test_an_upload_of_100_mib_arrives_whole_and_is_spooled_to_disk() -> None:
    correct_pieces = 0
    ended = asyncio.Event()
    pieces = 100 * MIB // len(_PIECE)

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal correct_pieces
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(pieces):
            correct_pieces += await reader.readexactly(len(_PIECE)) == _PIECE
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(receive, "127.0.0.1", 0, limit=MIB)
    port = server.sockets[0].getsockname()[1]
    with proxy_to(f"http://127.0.0.1:{port}", is_forked=False) as proxy:
        async with await RawCaller.connect(proxy.url.removeprefix("http://")) as caller:
            before = _peak_bytes(proxy.process.pid)
            await caller.send(request(b"POST", b"/x", b"Content-Length: %d" % (pieces * len(_PIECE))))
            for _ in range(pieces):
                await caller.send(_PIECE)
            assert (await caller.response()).body == b"ok"
            assert correct_pieces == pieces
            assert _peak_bytes(proxy.process.pid) - before < 2 * MIB + SLACK  # the copy: 1 MiB, then a file
    server.close()
    await ended.wait()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the program tunes only glibc")
async def test_bodies_reuse_freed_memory_without_page_faults() -> None:
    """Each page fault costs time, because the kernel clears a page."""
    rounds, callers = 20, 32
    body = bytes(64 * 1024)
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with ScriptedUpstream(responding(response)) as upstream, contextlib.AsyncExitStack() as stack:
        with proxy_to(str(upstream.origin), is_forked=False) as proxy:
            address = proxy.url.removeprefix("http://")
            connected = [await stack.enter_async_context(await RawCaller.connect(address)) for _ in range(callers)]
            before = 0
            for turn in range(2 * rounds):
                if turn == rounds:
                    before = _faults(proxy.process.pid)
                responses = await asyncio.gather(*(caller.post(b"/x", body) for caller in connected))
                assert {each.body for each in responses} == {body}
            assert (_faults(proxy.process.pid) - before) / (rounds * callers) < 1


def _faults(pid: int) -> int:
    """Returns the number of minor page faults (proc(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[10 - 3])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc reserves memory for each thread")
async def test_no_thread_reserves_memory_of_its_own() -> None:
    """A look-up of a name starts threads. Arenas of 64 MiB for each would not fit below a small `ulimit -v`."""
    with proxy_to("http://localhost:9", is_forked=False) as proxy:
        async with await RawCaller.connect(proxy.url.removeprefix("http://")) as caller:
            before = _address_space_bytes(proxy.process.pid)
            assert (await caller.get(b"/x")).status == 502
            added = _address_space_bytes(proxy.process.pid) - before
        assert added < 64 * MIB  # the stacks of the threads need about 32 MiB


def _address_space_bytes(pid: int) -> int:
    """Returns the size of the process's address space (proc(5), status), which every user may read."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmSize:"))
