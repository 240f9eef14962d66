"""Tells the other replicas what this one has counted for `daily_budget`, and hears what they have."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final

import orjson

from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, Won
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.access.shared_counts import Entry, SharedCounts
from nanonets_proxy.core.usage.rollups import DAY_S

_TELL_AFTER_S: Final = 0.05
_MAX_ENTRIES: Final = 2000  # of a message: they take less than 200 KB, and a few milliseconds


class CountsPost:
    """Sends the counts that have changed, 50 ms after the first change. Without budgets, it sends nothing."""

    def __init__(
        self, shared: SharedCounts, send: Callable[[str, Message], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.shared = shared
        self._send = send
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        shared.on_change = self._tell_soon

    def use(self, state: State, replicas: int) -> None:
        """Applies another state of this replica. `replicas`: how many it last heard of."""
        if not state.is_coordinated:
            self.shared.go_alone(replicas)
            return
        self.shared.meet()
        self.shared.go_together()
        self._tell()

    def hear(self, sender: str, counts: Iterable[Entry], *, is_leader: bool) -> None:
        """Notes the counts in a message. A leader tells everybody what the sender knows of other replicas."""
        new = self.hear_counts(counts)
        if is_leader:
            self._send_counts(EVERYBODY, [entry for entry in new if entry[0] != sender])

    def hear_counts(self, counts: Iterable[Entry]) -> list[Entry]:
        """Notes what other replicas have counted. Returns what was not known. Raises ValueError or TypeError."""
        return self.shared.hear(counts, _today())

    def note_kept(self, won: Won) -> None:
        """Notes what the last leader kept in Redis. Ignores what is malformed."""
        if won.kept:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self.hear_counts(orjson.loads(won.kept)["used"])

    def tell_all(self, sender: str) -> None:
        """Tells a replica all counts. A new member gets them before the welcome."""
        self._send_counts(sender, self.shared.everything())

    def tell_missing(self, leader: str) -> None:
        """Tells a leader the counts that it has not told: replicas may have gone before it could hear them."""
        self._send_counts(leader, self.shared.unheard())

    def tell_now(self) -> None:
        """Tells what has changed."""
        self._tell()

    def _tell_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_TELL_AFTER_S, self._tell)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send_counts(EVERYBODY, self.shared.tell(_today()))

    def _send_counts(self, to: str, entries: list[Entry]) -> None:
        for at in range(0, len(entries), _MAX_ENTRIES):
            self._send(to, {"t": "used", "counts": entries[at : at + _MAX_ENTRIES]})


def _today() -> int:
    """Returns the present day since 1970 (UTC), as `DailyBudget` counts days."""
    return int(time.time() // DAY_S)
