"""A TCP relay that injects network faults: small pieces, stalls, ends and resets, chosen by a seeded generator."""

import asyncio
import enum
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final, Self

from support.raw_upstream import reset

_PIECE_BYTES: Final = 64 * 1024
_LIMIT_BYTES: Final = 2**18


class Fault(enum.Enum):
    """The fault of one connection. It strikes after a number of bytes in one direction."""

    NONE = enum.auto()
    REFUSE = enum.auto()
    END = enum.auto()
    RESET = enum.auto()
    STALL = enum.auto()
    DRIP = enum.auto()


@dataclass(frozen=True, slots=True)
class FaultRates:
    """The share of connections with each fault, and the longest stall."""

    refuse: float
    end: float
    reset: float
    stall: float
    drip: float
    stall_s: float

    def choose(self, chance: random.Random) -> Fault:
        kinds = (Fault.REFUSE, Fault.END, Fault.RESET, Fault.STALL, Fault.DRIP)
        rates = (self.refuse, self.end, self.reset, self.stall, self.drip)
        return chance.choices((*kinds, Fault.NONE), (*rates, 1 - sum(rates)))[0]


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultRelay:
    """Listens on a free port of 127.0.0.1 and relays to `port`. `faults` counts the injected faults."""

    def __init__(self, port: int, rates: FaultRates, chance: random.Random) -> None:
        self._target_port = port
        self._rates = rates
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: Counter[Fault] = Counter()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._rates.choose(self._chance)
        self.faults[fault] += 1
        if fault is Fault.REFUSE:
            reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self._target_port, limit=_LIMIT_BYTES
            )
        except ConnectionError:
            reset(writer)
            return
        try:
            await self._relay((reader, writer), (far_reader, far_writer), fault)
        except asyncio.CancelledError:  # the run is over
            reset(writer)
            reset(far_writer)
            raise

    async def _relay(self, near: _Ends, far: _Ends, fault: Fault) -> None:
        """Relays both directions, and applies the fault to one of them after 1 to 10⁶ bytes.

        An end or a reset reaches both connections.
        """
        after_bytes = int(10 ** self._chance.uniform(0, 6))
        backward = self._chance.random() < 0.5
        directions = [
            asyncio.create_task(self._pump(near[0], far[1], Fault.NONE if backward else fault, after_bytes)),
            asyncio.create_task(self._pump(far[0], near[1], fault if backward else Fault.NONE, after_bytes)),
        ]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            broken = any(task.exception() or task.result() is Fault.RESET for task in done)
            if not broken and all(task.result() is Fault.NONE for task in done):
                # The other direction may still carry bytes.
                await asyncio.wait(directions, timeout=self._rates.stall_s)
        finally:
            for task in directions:
                task.cancel()
            results = await asyncio.gather(*directions, return_exceptions=True)
            for end in (near[1], far[1]):
                if Fault.RESET in results or any(isinstance(result, OSError) for result in results):
                    reset(end)
                else:
                    end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault, after_bytes: int
    ) -> Fault:
        """Relays until the end of the stream, or until the fault ends it."""
        passed = 0
        while data := await reader.read(_PIECE_BYTES):
            if fault in (Fault.END, Fault.RESET) and passed + len(data) >= after_bytes:
                writer.write(data[: after_bytes - passed])
                await writer.drain()
                return fault
            if fault is Fault.STALL and passed + len(data) >= after_bytes:
                fault = Fault.NONE
                await asyncio.sleep(self._chance.uniform(0, self._rates.stall_s))
            if fault is Fault.DRIP:
                for start in range(0, min(len(data), 200), 7):
                    writer.write(data[start : start + 7])
                    await asyncio.sleep(0)
                data = data[200 + (-200 % 7) :] if len(data) > 200 else b""
            writer.write(data)
            await writer.drain()
            passed += len(data)
        if writer.can_write_eof():
            writer.write_eof()
        return Fault.NONE
