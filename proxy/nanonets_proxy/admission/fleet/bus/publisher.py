"""Publishes messages over one connection to Redis. No message waits for the confirmation of an earlier one.

| state | event | next state |
|---|---|---|
| IDLE | `send` | WRITING; over a new connection if the server has closed the idle one |
| WRITING | all messages are written | CONFIRMING |
| CONFIRMING | `send` | WRITING, while the confirmations of the earlier messages are read |
| | Redis has confirmed each message | IDLE |
| any | a fault of the connection: `on_fault` is called | the messages that are not confirmed are lost |
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

CONFIRM_S: Final = 1.0
_MAX_QUEUED: Final = 10_000


class Publisher:
    """Uses a connection of redis-py, which belongs to it alone. Call `stop` before it is closed."""

    def __init__(
        self, connection: Any, on_unheard: Callable[[str], None], on_fault: Callable[[Exception], None]
    ) -> None:
        """`on_unheard` gets the name behind each message that reached nobody."""
        self._connection = connection
        # redis-py 8 has renamed the method.
        self._can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
        self._on_unheard = on_unheard
        self._on_fault = on_fault
        self._queue: list[tuple[str, str, bytes]] = []
        self._unconfirmed: deque[str] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def is_sending(self) -> bool:
        """Whether Redis has not yet confirmed all messages."""
        return bool(self._queue or self._unconfirmed)

    def send(self, to: str, channel: str, data: bytes) -> None:
        """Publishes a message to the replica `to`. Drops it if too many messages are queued."""
        if len(self._queue) >= _MAX_QUEUED:
            return
        self._queue.append((to, channel, data))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                self._unconfirmed.extend(to for to, _, _ in queue)
                pack = self._connection.pack_command
                commands = [part for _, channel, data in queue for part in pack("PUBLISH", channel, data)]
                if self._reader is None and await self._is_closed():
                    await self._connection.disconnect(nowait=True)
                await self._connection.send_packed_command(commands, check_health=False)  # connects if needed
                if self._reader is None:
                    self._reader = asyncio.get_running_loop().create_task(self._confirm())
        except Exception as error:  # noqa: BLE001 - the replicas notice a lost message by the silence
            self._fail(error)
        finally:
            self._writer = None

    async def _is_closed(self) -> bool:
        """Returns whether the idle connection is of no use, as after the `timeout` of Redis."""
        try:
            return bool(await self._can_read())
        except Exception:  # noqa: BLE001 - each error means a connection that is closed
            return True

    async def _confirm(self) -> None:
        from redis import exceptions

        try:
            while self._unconfirmed:
                try:
                    receivers = await self._connection.read_response(timeout=CONFIRM_S)
                except exceptions.ResponseError as error:
                    receivers = 1
                    self._on_fault(error)
                if receivers is None:
                    self._fail(exceptions.TimeoutError("no response to PUBLISH"))
                    return
                to = self._unconfirmed.popleft()
                if not receivers:
                    self._on_unheard(to)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
        finally:
            self._reader = None

    def _fail(self, error: Exception) -> None:
        self._queue.clear()
        self._unconfirmed.clear()
        for task in (self._writer, self._reader):  # the other one would meet, and report, the same fault
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._on_fault(error)

    async def flush(self, patience_s: float) -> None:
        """Waits for at most `patience_s` until Redis has confirmed all messages."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while (task := self._writer or self._reader) is not None:
                    await asyncio.wait([task])

    async def stop(self) -> None:
        """Ends the use of the connection."""
        tasks = [task for task in (self._writer, self._reader) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
