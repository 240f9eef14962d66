"""Attacks by callers. Afterwards, other callers are served as before, and memory and disk space are released.

`make test` runs the attacks at a small scale, `make abuse` at full scale (`ABUSE_SCALE=1`). At full scale, the
tests also compare the latency of other callers' requests before and after the attack.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.commands.process import Running, proxy_to
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK

SCALE = float(os.environ.get("ABUSE_SCALE", "0.01"))
KEY = "sk-abuse-0123456789abcdef"
AT_ONCE = 200
MIB = 2**20
# The allocator keeps about 6 KiB for each of 10,000 connections. A proxy that kept a flood's requests would
# need a megabyte for each.
ALLOWED_GROWTH_KIB = 96 * 1024
PROBES = 200 if SCALE >= 1 else 20
_MAX_MEASUREMENTS = 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and calls from all of 127.0.0.0/8")


def scaled(count: int) -> int:
    return max(32, round(count * SCALE))


class Target:
    """The real proxy in a separate process. Measures the effects of an attack on other callers."""

    def __init__(self, child: Running, spool: Path) -> None:
        self.child = child
        self.spool = spool
        self.address = child.wait_for("started")["listen"][0]
        self.admin_address = child.wait_for("started")["admin_listen"][0]
        self.host, _, port = self.address.rpartition(":")
        self.port = int(port)
        self._baseline_p99_s = 0.0
        self._resident_kib = 0

    async def record_baseline(self) -> None:
        await self.p99_s()  # warms up the proxy
        self._baseline_p99_s = min([await self.p99_s() for _ in range(5 if SCALE >= 1 else 1)])
        self.record_resident()

    def record_resident(self) -> None:
        self._resident_kib = self.resident_kib()

    async def p99_s(self) -> float:
        """Returns the 99th percentile latency of GETs on new connections. All GETs must succeed."""
        latencies_s = []
        for _ in range(PROBES):
            began_s = time.perf_counter()
            async with await RawCaller.connect(self.address) as caller:
                assert (await caller.get(b"/api/v4/workflows")).status == 200
            latencies_s.append(time.perf_counter() - began_s)
        return sorted(latencies_s)[int(PROBES * 0.99)]

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.child.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    async def check_recovered(self) -> None:
        # Other load on the machine slows some measurements; damage by the attack slows all of them.
        p99_s = await self.p99_s()
        for _ in range(_MAX_MEASUREMENTS if SCALE >= 1 else 0):
            if p99_s <= 2 * self._baseline_p99_s:
                break
            p99_s = await self.p99_s()
        resident_kib = self.resident_kib()
        sys.stdout.write(
            f"p99 {self._baseline_p99_s * 1e3:.1f} -> {p99_s * 1e3:.1f} ms, "
            f"resident {self._resident_kib // 1024} -> {resident_kib // 1024} MiB\n"
        )
        if SCALE >= 1:
            assert p99_s <= 2 * self._baseline_p99_s
        assert resident_kib <= self._resident_kib + ALLOWED_GROWTH_KIB
        assert list(self.spool.iterdir()) == []

    async def gauge(self, name: str) -> float:
        async with await RawCaller.connect(self.admin_address) as caller:
            lines = (await caller.get(b"/metrics")).body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def _respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Responds to each request after discarding its body."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            while length > 0:
                piece = await reader.read(min(length, MIB))
                if not piece:
                    return
                length -= len(piece)
            writer.write(OK)
            await writer.drain()


@asynccontextmanager
async def discarding_upstream() -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_respond(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def target(tmp_path: Path, *arguments: str) -> AsyncIterator[Target]:
    spool = tmp_path / "spool"
    spool.mkdir()
    async with discarding_upstream() as upstream:
        with ExitStack() as stack:
            settings = ("--spool-dir", str(spool), *arguments)
            child = await asyncio.to_thread(stack.enter_context, proxy_to(upstream, *settings, key=KEY))
            attacked = Target(child, spool)
            await attacked.record_baseline()
            yield attacked
            await attacked.check_recovered()
            assert await asyncio.to_thread(child.end) == 0
        assert KEY.encode() not in child.stdout + child.stderr


async def run_concurrently(count: int, jobs: Iterable[Awaitable[None]]) -> None:
    """Runs all jobs, at most `count` at a time."""
    places = asyncio.Semaphore(count)

    async def run(job: Awaitable[None]) -> None:
        async with places:
            await job

    await asyncio.gather(*map(run, jobs))


async def opened(attacked: Target, count: int, *, admin: bool = False) -> list[asyncio.StreamWriter]:
    """Opens `count` connections from many loopback addresses."""
    host, _, port = (attacked.admin_address if admin else attacked.address).rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def connect(number: int) -> None:
        own = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        _, writer = await asyncio.open_connection(host, int(port), local_addr=(own, 0))
        writers.append(writer)

    await run_concurrently(AT_ONCE, map(connect, range(count)))
    return writers


async def test_half_open_connections(tmp_path: Path) -> None:
    async with target(tmp_path) as attacked:
        writers = await opened(attacked, scaled(10_000))
        for number, writer in enumerate(writers):
            if number % 2:
                writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n")
        await attacked.p99_s()  # other callers are served during the attack, too
        for writer in writers:
            writer.transport.abort()


async def test_a_flood_of_the_admin_listener(tmp_path: Path) -> None:
    async with target(tmp_path) as attacked:
        writers = await opened(attacked, scaled(2000), admin=True)
        for number, writer in enumerate(writers):
            # Half of them send a head of megabytes without an end.
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * (number % 2 * 400_000))
        await attacked.p99_s()
        assert await attacked.gauge("nanonets_proxy_in_flight") == 0, "a scrape displaces an idle connection"
        for writer in writers:
            writer.transport.abort()


async def test_more_connections_than_max_connections(tmp_path: Path) -> None:
    async with target(tmp_path, "--max-connections", str(scaled(1000))) as attacked:
        writers = await opened(attacked, scaled(1000) * 3)
        await attacked.p99_s()
        assert await attacked.gauge("nanonets_proxy_caller_connections") <= scaled(1000)
        for writer in writers:
            writer.transport.abort()


async def test_slow_heads(tmp_path: Path) -> None:
    async with target(tmp_path) as attacked:
        writers = await opened(attacked, scaled(2000))
        for piece in (b"G", b"ET", b" /x HTT", b"P/1.1\r", b"\nHost: local", b"host\r\nX-A:"):
            for writer in writers:
                writer.write(piece)
            await asyncio.sleep(0)
        await attacked.p99_s()
        for writer in writers:
            writer.transport.abort()


async def test_invented_callers_scopes_and_header_layouts(tmp_path: Path) -> None:
    """Each request has a caller's name, a model id and a layout of header fields of its own."""

    async def send(attacked: Target, first: int) -> None:
        async with await RawCaller.connect(attacked.address) as caller:
            for number in range(first, first + 20):
                path = b"/api/v2/OCR/Model/%08d-0000-0000-0000-000000000000/LabelUrls/" % number
                await caller.send(request(b"POST", path, b"X-Team: t%d" % number, b"X-%d: a" % number, body=b"x"))
                assert (await caller.response()).status == 200

    async with target(tmp_path, "--caller-header", "X-Team") as attacked:
        await run_concurrently(AT_ONCE, (send(attacked, 20 * number) for number in range(scaled(1000))))


async def test_random_bytes(tmp_path: Path) -> None:
    chance = random.Random(20)
    starts = (
        b"",
        b"GET ",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: ",
    )

    async def send(attacked: Target, data: bytes) -> None:
        reader, writer = await asyncio.open_connection(attacked.host, attacked.port)
        writer.write(data)
        with suppress(ConnectionError):
            writer.write_eof()
            async with asyncio.timeout(20):
                assert KEY.encode() not in await reader.read()
        writer.transport.abort()

    async with target(tmp_path) as attacked:
        count = scaled(20_000)
        payloads = [
            chance.choice(starts) + chance.randbytes(chance.randrange(400)) + b"\r\n\r\n" for _ in range(count)
        ]
        await run_concurrently(AT_ONCE, (send(attacked, data) for data in payloads))


async def test_header_floods(tmp_path: Path) -> None:
    many = b"GET /x HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(20_000))
    long = b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * MIB
    target_flood = b"GET /" + b"a" * MIB

    async def send(attacked: Target, data: bytes) -> None:
        reader, writer = await asyncio.open_connection(attacked.host, attacked.port)
        with suppress(ConnectionError):
            writer.write(data)
            async with asyncio.timeout(20):
                response = await reader.read()
            assert response[9:10] in (b"4", b"")
        writer.transport.abort()

    async with target(tmp_path) as attacked:
        floods = [(many, long, target_flood)[number % 3] for number in range(scaled(1000))]
        await run_concurrently(AT_ONCE, (send(attacked, data) for data in floods))


async def test_large_uploads_with_a_small_spool(tmp_path: Path) -> None:
    size = round(100 * MIB * max(SCALE, 0.04))
    piece = b"x" * (256 * 1024)

    async def upload(attacked: Target, size: int) -> None:
        async with await RawCaller.connect(attacked.address) as caller:
            caller.writer.write(b"POST /api/v4/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                caller.writer.write(piece[:left])
                left -= min(left, len(piece))
                await caller.writer.drain()
            async with asyncio.timeout(900):
                head = await caller._reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head

    limits = ("--spool-total", "32MiB", "--body-memory-total", "16MiB", "--replay-limit", "16MiB")
    async with target(tmp_path, *limits, "--body-memory", "64KiB") as attacked:
        # The allocator keeps the memory of concurrent uploads; uploads of ten times the size must not need more.
        await asyncio.gather(*(upload(attacked, size // 10) for _ in range(scaled(500))))
        attacked.record_resident()
        await asyncio.gather(*(upload(attacked, size) for _ in range(scaled(500))))
        assert await attacked.gauge("nanonets_proxy_body_spool_bytes") == 0
        assert await attacked.gauge("nanonets_proxy_body_memory_bytes") == 0


async def test_a_rejected_request_does_not_reach_the_upstream(tmp_path: Path) -> None:
    async with target(tmp_path, "--policy", "deny * /api/v4/secret/**") as attacked:
        for trick in (b"/api/v4/%73ecret/1", b"/api/v4/x/../secret/1", b"/api/v4//secret/1", b"/api/v4/secret%2f1"):
            async with await RawCaller.connect(attacked.address) as caller:
                await caller.send(request(b"GET", trick))
                assert (await caller.response()).status == 403
