"""Malformed messages: one of them is logged each minute, with its sender."""

import asyncio
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from nanonets_proxy.admission.fleet.bus.post import Inbox, seal, unseal
from support.gate.virtual_loop import run_virtually


def test_a_flood_of_malformed_messages_is_one_log_event_a_minute() -> None:
    heard: list[tuple[str, dict[str, Any]]] = []

    def on_message(sender: str, epoch: int, at_s: float, message: dict[str, Any]) -> None:
        assert (epoch, at_s) == (7, 1.5)
        heard.append((sender, message["t"]))

    async def main() -> None:
        inbox = Inbox(on_message, asyncio.get_running_loop())
        for _ in range(100):
            inbox.deliver(seal("a", 7, 1.5, [{"t": "good"}, {"x": "bad"}, {"t": "not read"}]))
        inbox.deliver(b"")
        await asyncio.sleep(60.0)
        inbox.deliver(b"[]")

    with capture_logs() as events:
        run_virtually(main())
    assert [(event["event"], event["sender"], event["times"]) for event in events] == [
        ("fleet_message_invalid", "a", 1),
        ("fleet_message_invalid", None, 101),
    ]
    assert heard == [("a", "good")] * 100


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
