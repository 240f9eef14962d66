"""What a replica reads: malformed messages, long ones and many of them."""

import asyncio
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from nanonets_proxy.admission.fleet.bus import post
from nanonets_proxy.admission.fleet.bus.post import Inbox, Post, seal, unseal
from support.gate.fleet_messages import BELIEFS, EXAMPLES, example
from support.gate.virtual_loop import run_virtually


def test_a_flood_of_malformed_messages_is_one_log_event_a_minute() -> None:
    heard: list[tuple[str, dict[str, Any]]] = []

    def on_message(sender: str, epoch: int, at_s: float, message: dict[str, Any]) -> None:
        assert (epoch, at_s) == (7, 1.5)
        heard.append((sender, message["t"]))

    async def main() -> None:
        inbox = Inbox(on_message, asyncio.get_running_loop())
        for _ in range(100):
            inbox.deliver(seal("a", 7, 1.5, [{"t": "here"}, {"x": "bad"}, {"t": "who"}]))
        inbox.deliver(b"")
        await asyncio.sleep(60.0)
        inbox.deliver(b"[]")

    with capture_logs() as events:
        run_virtually(main())
    assert [(event["event"], event["sender"], event["times"]) for event in events] == [
        ("fleet_message_invalid", "a", 1),
        ("fleet_message_invalid", None, 101),
    ]
    assert heard == [("a", "here")] * 100


@pytest.mark.parametrize("epoch", [-1, 2**53, 1e308])
def test_an_epoch_that_redis_cannot_have_given_is_malformed(epoch: float) -> None:
    """A replica that took it over could send no further message."""
    assert unseal(seal("a", 2**53 - 1, 1.5, [])).epoch == 2**53 - 1
    with pytest.raises(ValueError, match="no epoch"):
        unseal(orjson.dumps({"from": "a", "epoch": epoch, "at": 1.5, "is": []}))


def test_the_name_of_a_sender_is_short() -> None:
    assert unseal(seal("a" * 64, 7, 1.5, [])).sender == "a" * 64
    with pytest.raises(ValueError, match="long name"):
        unseal(seal("a" * 65, 7, 1.5, []))


@pytest.mark.parametrize("sender", [None, 7, "", "a\nb", "\x1b[2J", "\u00e9"])
def test_the_name_of_a_sender_can_be_shown_and_answered(sender: object) -> None:
    with pytest.raises(ValueError, match="a sender"):
        unseal(orjson.dumps({"from": sender, "epoch": 7, "at": 1.5, "is": []}))


class SlowLoop(asyncio.SelectorEventLoop):
    """Each message takes 2 ms of its time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s


def test_a_long_envelope_does_not_hold_the_event_loop() -> None:
    """The messages stay in order, also those of later envelopes."""
    heard: list[int] = []
    turns: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SlowLoop)

        def on_message(_sender: str, _epoch: int, _at_s: float, message: dict[str, Any]) -> None:
            heard.append(message["n"])
            loop.now_s += 0.002

        inbox = Inbox(on_message, loop)
        inbox.deliver(seal("a", 7, 1.5, [{"t": "leave", "n": n} for n in range(10)]))
        inbox.deliver(seal("b", 7, 1.5, [{"t": "leave", "n": n} for n in range(10, 20)]))
        while len(heard) < 20:
            turns.append(len(heard))
            await asyncio.sleep(0)
        inbox.deliver(seal("b", 7, 1.5, [{"t": "leave", "n": 20}]))

    with asyncio.Runner(loop_factory=SlowLoop) as runner:
        runner.run(main())
    assert heard == list(range(21))
    assert turns == [3, 6, 9, 12, 15, 18]


def test_envelopes_that_are_too_long_or_too_many_are_dropped_and_their_sender_is_logged() -> None:
    heard: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SlowLoop)

        def on_message(_sender: str, _epoch: int, _at_s: float, message: dict[str, Any]) -> None:
            heard.append(message["t"])
            loop.now_s += 1.0

        inbox = Inbox(on_message, loop)
        long = seal("a", 7, 1.5, [{"t": "here"}, {"t": "here", "x": "x" * (post.MAX_BYTES - 100)}])
        inbox.deliver(seal("long", 7, 1.5, [{"t": "here", "x": "x" * post.MAX_BYTES}]))
        inbox.deliver(b"x" * (post.MAX_BYTES + 1))
        inbox.deliver(b"[" * 100_000)
        assert heard == []
        loop.now_s += 61.0
        for _ in range(20):
            inbox.deliver(long)
        for _ in range(100):
            await asyncio.sleep(0)

    with capture_logs() as events, asyncio.Runner(loop_factory=SlowLoop) as runner:
        runner.run(main())
    assert [(event["sender"], event["times"]) for event in events] == [("long", 1), ("a", 3)]
    assert len(heard) == 18


def test_an_exception_of_any_kind_ends_no_subscription() -> None:
    heard: list[str] = []

    def on_message(_sender: str, _epoch: int, _at_s: float, message: dict[str, Any]) -> None:
        heard.append(message["t"])
        if message["t"] == "who":
            raise ZeroDivisionError("a defect")

    async def main() -> None:
        inbox = Inbox(on_message, asyncio.get_running_loop())
        inbox.deliver(seal("a", 7, 1.5, [{"t": "who"}, {"t": "here"}]))
        inbox.deliver(seal("a", 7, 1.5, [{"t": "bye"}]))

    with capture_logs() as events:
        run_virtually(main())
    assert heard == ["who", "bye"]
    assert [(event["sender"], event["reason"]) for event in events] == [("a", "ZeroDivisionError: a defect")]


def test_limits_that_cannot_be_read_are_logged_and_the_rest_of_the_beat_counts() -> None:
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        inbox = Inbox(lambda *args: heard.append(args[3]), asyncio.get_running_loop())
        inbox.deliver(seal("a", 7, 1.5, [example("beat") | {"beliefs": BELIEFS | {"version": 0}}]))

    with capture_logs() as events:
        run_virtually(main())
    assert heard == [{"t": "beat", "replicas": 3, "use": EXAMPLES["beat"]["use"]}]
    assert [event["sender"] for event in events] == ["a"]


def test_what_is_too_long_for_one_envelope_goes_in_several_and_in_order() -> None:
    sent: list[bytes] = []

    class Bus:
        def send(self, to: str, data: bytes) -> None:
            assert to == "b"
            assert len(data) < 400_000
            sent.append(data)

    async def main() -> None:
        sender = Post("a", Bus(), asyncio.get_running_loop(), lambda: 7)
        for n in range(50):
            sender.send("b", {"t": "leave", "n": n, "x": "x" * 300_000})
        await asyncio.sleep(0)

    run_virtually(main())
    assert len(sent) > 1
    assert [message["n"] for data in sent for message in unseal(data).messages] == list(range(50))
