"""The handover of a replica to the process that replaces this one, or from the one that it replaces.

Both processes belong to the fleet, so the earlier one keeps its requests. It only tells what it knows.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nanonets_proxy.admission.fleet.bequest import give, take
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.handed_over_gate import Message


class FleetHandover:
    """Has the methods of `GateHandover`."""

    def __init__(self, replica: Replica, fleet: str) -> None:
        """`fleet`: what another fleet knows says nothing about this one."""
        self._replica = replica
        self.upstream = fleet
        self.has_predecessor = False

    # --- to the successor -------------------------------------------------------------------------

    def give(self, send: Callable[[Message], None]) -> dict[str, Any]:  # noqa: ARG002 - no message follows
        """Returns the document for the successor. From now on, this process uses half of its share."""
        return give(self._replica, asyncio.get_running_loop().time())

    def receive_from_successor(self, message: Message) -> None:
        """Does nothing: Redis has the messages."""

    def take_back(self) -> None:
        """Uses the whole share again: the successor did not start, or has gone."""
        self._replica.use_part(1)

    # --- from the predecessor ---------------------------------------------------------------------

    def take(self, document: Mapping[str, Any], send: Callable[[Message], None]) -> None:  # noqa: ARG002
        """Takes over what the predecessor knows. Raises ValueError, KeyError or TypeError if it is unusable."""
        take(self._replica, document, asyncio.get_running_loop().time())
        self.has_predecessor = True

    def lose_predecessor(self) -> None:
        """Uses the whole share, once the latest requests of the predecessor, which has ended, no longer count."""
        if self.has_predecessor:
            self.has_predecessor = False
            asyncio.get_running_loop().call_later(self._replica.own.longest_period_s, self._replica.use_part, 1)

    def receive_from_predecessor(self, message: Message) -> None:
        """Does nothing: Redis has the messages."""
