"""Sends the messages of one turn of the event loop together, and reads envelopes.

An envelope is JSON: `{"from": REPLICA, "epoch": NUMBER, "at": SECONDS, "is": [MESSAGE, …]}`. `at` is when it was
sent, by the sender's clock. Each message is an object; `t` names its kind. docs/fleet.md lists them.
"""

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple

import orjson
import structlog

from nanonets_proxy.admission.fleet.bus.port import Bus
from nanonets_proxy.admission.fleet.homes.remote_home import Message


class Envelope(NamedTuple):
    """Messages of one replica."""

    sender: str
    epoch: int
    at_s: float
    """When it was sent, by the clock of the sender."""
    messages: list[Message]


def seal(sender: str, epoch: int, at_s: float, messages: list[Message]) -> bytes:
    """Returns the bytes of an envelope."""
    return orjson.dumps({"from": sender, "epoch": epoch, "at": at_s, "is": messages})


def unseal(data: bytes) -> Envelope:
    """Returns the messages. Raises ValueError, KeyError or TypeError if the data is no envelope."""
    document = orjson.loads(data)
    messages = document["is"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("an envelope without messages")
    at_s = float(document["at"])
    if not math.isfinite(at_s):
        raise ValueError(f"{at_s!r} is no instant")
    return Envelope(str(document["from"]), int(document["epoch"]), at_s, messages)


def deliver(data: bytes, on_message: Callable[[str, int, float, Message], None]) -> None:
    """Calls `on_message` with the first three fields of the envelope and each message.

    Logs a malformed message, and ends there.
    """
    try:
        envelope = unseal(data)
        for message in envelope.messages:
            on_message(envelope.sender, envelope.epoch, envelope.at_s, message)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        structlog.get_logger().warning("fleet_message_invalid", reason=reason)


class Post:
    """The messages that this replica sends."""

    def __init__(self, name: str, bus: Bus, loop: asyncio.AbstractEventLoop, epoch: Callable[[], int]) -> None:
        self._name = name
        self._bus = bus
        self._loop = loop
        self._epoch = epoch
        self._waiting: dict[str, list[Message]] = {}

    def send(self, to: str, message: Message) -> None:
        """Sends a message to a replica, or to `bus.EVERYBODY`."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.setdefault(to, []).append(message)

    def flush(self) -> None:
        """Sends now what waits."""
        waiting, self._waiting = self._waiting, {}
        for to, messages in waiting.items():
            self._bus.send(to, seal(self._name, self._epoch(), self._loop.time(), messages))
