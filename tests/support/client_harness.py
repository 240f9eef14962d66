"""Runs the upstream client with its pool and dialer, as the program does, with limits for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.upstream.body import BodyBudget, RequestBody
from nanonets_proxy.upstream.client import StartedResponse, UpstreamClient
from nanonets_proxy.upstream.dial import Dialer
from nanonets_proxy.upstream.exchange import UpstreamRequest
from nanonets_proxy.upstream.policy import BodyPolicy, DialPolicy
from nanonets_proxy.upstream.pool import Pool
from support.eventually import WAIT_S


@dataclass(frozen=True, slots=True)
class FetchedResponse:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]


class RunningClient:
    """An upstream client and its parts. `retries` counts the requests that the client sent again by itself."""

    def __init__(
        self,
        origin: Origin,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        keep_alive_s: float,
        ca_file: Path | None,
    ) -> None:
        policy = DialPolicy(origin, connect_timeout_s=WAIT_S, idle_timeout_s=idle_timeout_s, ca_file=ca_file)
        self.dialer = Dialer(policy)
        self.pool = Pool(self.dialer, keep_alive_s=keep_alive_s)
        self.client = UpstreamClient(
            self.pool, first_byte_timeout_s=first_byte_timeout_s, on_retry=self._count_retry
        )
        self.retries = 0

    def _count_retry(self) -> None:
        self.retries += 1

    async def fetch(self, request: UpstreamRequest) -> FetchedResponse:
        """Sends a request, and returns its whole response."""
        exchange = await self.client.send(request)
        return await self.read_response(exchange)

    async def read_response(self, exchange: StartedResponse) -> FetchedResponse:
        connection, head = exchange
        body = b""
        try:
            while piece := await connection.read():
                body += piece
            trailers = connection.trailers
        finally:
            self.client.release(connection)
        return FetchedResponse(head.status, head.headers, body, trailers)


@asynccontextmanager
async def running_client(
    origin: Origin,
    *,
    first_byte_timeout_s: float = WAIT_S,
    idle_timeout_s: float = WAIT_S,
    keep_alive_s: float = 60.0,
    ca_file: Path | None = None,
) -> AsyncIterator[RunningClient]:
    running = RunningClient(origin, first_byte_timeout_s, idle_timeout_s, keep_alive_s, ca_file)
    try:
        yield running
    finally:
        running.pool.close()


def request(
    method: str = "GET", body: RequestBody | None = None, *, path: str = "/", expect_continue: bool = False
) -> UpstreamRequest:
    """Returns a request with the framing that its body needs."""
    lines = [f"{method} {path} HTTP/1.1", "Host: upstream"]
    if body is not None:
        lines.append("Transfer-Encoding: chunked" if body.length is None else f"Content-Length: {body.length}")
    head = "\r\n".join([*lines, "", ""]).encode()
    return UpstreamRequest(method, head, body, expect_continue)


def body_budget(
    spool_dir: Path,
    *,
    memory: int = 2**20,
    memory_total: int = 2**24,
    spool_total: int = 2**28,
    replay: int = 2**28,
    files: int = 2**10,
) -> BodyBudget:
    """Returns a budget for kept bodies. All limits are in bytes."""
    return BodyBudget(BodyPolicy(memory, memory_total, spool_dir, spool_total, replay, files))
