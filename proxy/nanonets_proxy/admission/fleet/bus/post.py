"""Sends the messages of one turn of the event loop together, and reads envelopes.

An envelope is JSON: `{"from": REPLICA, "epoch": NUMBER, "at": SECONDS, "is": [MESSAGE, …]}`. `at` is when it was
sent, by the sender's clock. Each message is an object; `t` names its kind. docs/fleet-protocol.md lists them, and
`messages.py` has their form.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson
import structlog

from nanonets_proxy.admission.fleet.bus.messages import is_between, is_name, is_number, read
from nanonets_proxy.admission.fleet.bus.once_a_minute import OnceAMinute
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, Bus
from nanonets_proxy.admission.fleet.homes.remote_home import Message

MAX_BYTES: Final = 4 << 20
"""Of an envelope: the hello of a replica with 16,384 permits in use takes about 2 MB."""
_MAX_PARTS: Final = 50_000  # lists and objects of an envelope: the parser takes most of its time to make them
_SPLIT_BYTES: Final = 256 << 10  # of an envelope of several messages, so that a receiver reads it in few ms
_MAX_WAITING_BYTES: Final = 32 << 20  # as Redis keeps for a subscriber (client-output-buffer-limit)
_TURN_S: Final = 0.005
_SENDER: Final = re.compile(rb'\{"from":"([!#-~]{1,64})"')
_is_instant = is_between(-1e12, 1e12)


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
    sender, epoch, at_s, messages = document["from"], document["epoch"], document["at"], document["is"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("an envelope without messages")
    if not _is_instant(at_s):
        raise ValueError("an envelope without an instant")
    if not is_number(epoch):
        raise ValueError("no epoch of Redis")
    if not is_name(sender) or sender == EVERYBODY:
        raise ValueError("a sender with a long name, or with none")
    return Envelope(sender, epoch, at_s, messages)


class Inbox:
    """Reads envelopes, and passes their messages on.

    A long envelope, or many of them, may take more than a turn of the event loop should. The rest waits for the
    next turn, in order. If more waits than Redis itself would keep, further envelopes are dropped.

    Of malformed messages, it logs one a minute at most: a defective replica may send them all the time.
    """

    def __init__(
        self, on_message: Callable[[str, int, float, Message], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """`on_message` gets the first three fields of the envelope and each message."""
        self._on_message = on_message
        self._loop = loop
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._opened = Envelope("", 0, 0.0, [])  # its messages are in `_rest`
        self._rest: deque[Message] = deque()
        self._is_busy = False
        self._invalid = OnceAMinute(loop)

    def deliver(self, data: bytes) -> None:
        """Passes the messages of an envelope on, up to a malformed one."""
        is_long = len(data) > MAX_BYTES or data.count(b"[") + data.count(b"{") > _MAX_PARTS
        if is_long or self._waiting_bytes + len(data) > _MAX_WAITING_BYTES:
            found = _SENDER.match(data)
            reason = (
                f"an envelope of {len(data)} bytes is too {'long' if is_long else 'much beside all that waits'}"
            )
            self.note_invalid(found[1].decode() if found else "", reason)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if not self._is_busy:
            self._is_busy = True
            self._work()

    def _work(self) -> None:
        until_s = self._loop.time() + _TURN_S
        while self._rest or self._waiting:
            if self._loop.time() > until_s:
                self._loop.call_soon(self._work)
                return
            try:
                self._take_next()
            except Exception as error:  # noqa: BLE001 - no message of another replica may end the subscription
                self._rest.clear()
                self.note_invalid(self._opened.sender, f"{type(error).__name__}: {error}"[:200])
        self._is_busy = False

    def _take_next(self) -> None:
        """Opens the next envelope, or acts on the next message of the one that is open."""
        if self._rest:
            message, opened = self._rest.popleft(), self._opened
            if left_out := read(message):
                self.note_invalid(opened.sender, left_out[:200])
            self._on_message(opened.sender, opened.epoch, opened.at_s, message)
            return
        data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._opened = Envelope("", 0, 0.0, [])  # while the sender is unknown
        self._opened = unseal(data)
        self._rest.extend(self._opened.messages)

    def note_invalid(self, sender: str, reason: str) -> None:
        """Logs a message that is malformed, or that cannot be true."""
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
            self._send(to, messages)

    def _send(self, to: str, messages: list[Message]) -> None:
        data = seal(self._name, self._epoch(), self._loop.time(), messages)
        if len(data) > _SPLIT_BYTES and len(messages) > 1:
            middle = len(messages) // 2
            self._send(to, messages[:middle])
            self._send(to, messages[middle:])
        else:
            self._bus.send(to, data)
