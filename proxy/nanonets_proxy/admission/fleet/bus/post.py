"""Sends the messages of one turn of the event loop together, and reads envelopes.

An envelope is JSON: `{"from": REPLICA, "epoch": NUMBER, "at": SECONDS, "is": [MESSAGE, …]}`. `at` is when it was
sent, by the sender's clock. Each message is an object; `t` names its kind. docs/fleet.md lists them.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson
import structlog

from nanonets_proxy.admission.fleet.bus.once_a_minute import OnceAMinute
from nanonets_proxy.admission.fleet.bus.port import Bus
from nanonets_proxy.admission.fleet.homes.remote_home import Message

_MAX_NAME: Final = 64
_EPOCHS: Final = 2**53  # the scripts in Redis count in floats


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
    at_s, sender, epoch = float(document["at"]), str(document["from"]), int(document["epoch"])
    if not math.isfinite(at_s):
        raise ValueError(f"{at_s!r} is no instant")
    if not 0 <= epoch < _EPOCHS:
        raise ValueError("no epoch of Redis")
    if len(sender) > _MAX_NAME:
        raise ValueError("a sender with a long name")
    return Envelope(sender, epoch, at_s, messages)


class Inbox:
    """Reads envelopes, and passes their messages on.

    Of malformed messages, it logs one a minute at most: a defective replica may send them all the time.
    """

    def __init__(
        self, on_message: Callable[[str, int, float, Message], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """`on_message` gets the first three fields of the envelope and each message."""
        self._on_message = on_message
        self._invalid = OnceAMinute(loop)

    def deliver(self, data: bytes) -> None:
        """Passes the messages of an envelope on, up to a malformed one."""
        sender = ""
        try:
            envelope = unseal(data)
            sender = envelope.sender
            for message in envelope.messages:
                self._on_message(sender, envelope.epoch, envelope.at_s, message)
        except (ValueError, KeyError, TypeError) as error:
            self._note_invalid(sender, f"{type(error).__name__}: {error}"[:200])

    def _note_invalid(self, sender: str, reason: str) -> None:
        if times := self._invalid.count():
            log = structlog.get_logger()
            log.warning("fleet_message_invalid", sender=sender or None, reason=reason, times=times)


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
        for to, messages in sorted(waiting.items()):  # EVERYBODY is first: a welcome has what all know
            self._bus.send(to, seal(self._name, self._epoch(), self._loop.time(), messages))
