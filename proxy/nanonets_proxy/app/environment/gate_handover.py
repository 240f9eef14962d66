"""The handover of one environment's gate: to the process that replaces this one, or from the one that it replaces.

The documents and messages are JSON, since another release may be at the other end.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from nanonets_proxy.admission.handed_over_gate import HandedOverGate, Message
from nanonets_proxy.admission.predecessor import Predecessor
from nanonets_proxy.admission.state_file import StateFile
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.exact_state import take_exact
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.snapshot import dump, load

_TAKEN_AT: Final = "taken_at_s"
_LIMITS: Final = "limits"
_EXACT: Final = "exact"
_IN_FLIGHT: Final = "in_flight"


class GateHandover:
    """Gives the gate away once, or takes one over before the first request."""

    def __init__(
        self,
        gate: Gate,
        room: WaitingRoom,
        upstream: str,
        policy: Callable[[], GatePolicy],
        state_file: StateFile | None,
    ) -> None:
        """`upstream`: limits of another upstream say nothing about this one.

        `policy` returns the gate's policy.
        """
        self._gate = gate
        self._room = room
        self._policy = policy
        self._state_file = state_file
        self.upstream = upstream
        self._handed_over: HandedOverGate | None = None
        self._predecessor: Predecessor | None = None

    # --- to the successor -------------------------------------------------------------------------

    def give(self, send: Callable[[Message], None]) -> dict[str, Any]:
        """Returns the document for the successor, whose gate decides for this process's requests from now on."""
        now_s = asyncio.get_running_loop().time()
        left, in_flight = self._gate.in_flight, {}
        for scope in self._gate.scopes:
            # A paused ticket has no place. Which of the tickets are paused makes no difference here.
            if count := min(scope.limit.in_flight, left):
                in_flight[scope.name] = count
                left -= count
        document = {
            _TAKEN_AT: now_s,
            _EXACT: take_exact(self._gate.scopes),
            _LIMITS: dump(self._gate.scopes.snapshots(now_s), self.upstream, time.time()),
            _IN_FLIGHT: in_flight,
        }
        self._handed_over = HandedOverGate(self._gate, self._policy(), send)
        self._room.hand_over(self._handed_over)
        self._pause_file(is_paused=True)
        return document

    def receive_from_successor(self, message: Message) -> None:
        """Carries out a verdict of the successor."""
        if self._handed_over is not None:
            self._handed_over.receive(message)
            self._room.poll()

    def take_back(self) -> None:
        """Lets this process's gate decide again: the successor did not start, or has gone."""
        if self._handed_over is not None:
            self._handed_over.go_on_alone(asyncio.get_running_loop().time())
            self._room.poll()
            if not self._handed_over.has_other_permits:
                self._room.use(self._gate)
            self._handed_over = None
            self._pause_file(is_paused=False)

    def _pause_file(self, *, is_paused: bool) -> None:
        if self._state_file is not None:
            self._state_file.is_paused = is_paused

    # --- from the predecessor ---------------------------------------------------------------------

    def take(self, document: Mapping[str, Any], send: Callable[[Message], None]) -> None:
        """Takes the predecessor's limits and its requests over. Raises ValueError if the document is unusable.

        Limits of another release are restored as from a state file.
        """
        snapshots, _ = load(document.get(_LIMITS), self.upstream, time.time())
        now_s, scopes = asyncio.get_running_loop().time(), self._gate.scopes
        exact = document.get(_EXACT, {})
        known_serials = frozenset(exact if scopes.restore_exact(exact, now_s) else ())
        # By the monotonic clock, which both processes share: the other one may have been set meanwhile.
        scopes.restore(snapshots, now_s, max(0.0, now_s - document[_TAKEN_AT]))
        self._predecessor = Predecessor(self._room, document.get(_IN_FLIGHT, {}), send, known_serials)

    @property
    def has_predecessor(self) -> bool:
        """Whether the gate has the limits of a predecessor."""
        return self._predecessor is not None

    def lose_predecessor(self) -> None:
        """Ends what the predecessor had: it has ended."""
        if self._predecessor is not None:
            self._predecessor.lose()
            self._predecessor = None

    def receive_from_predecessor(self, message: Message) -> None:
        """Does what a message of the predecessor says."""
        if self._predecessor is not None:
            self._predecessor.receive(message)
