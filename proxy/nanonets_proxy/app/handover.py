"""The handover of all that a program serves, to the process that replaces it.

`process/restart.py` has the states of both processes, and `gate_handover.py` the part of each gate.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.admission.handed_over_gate import Message
from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.app.environment.environment import Environment
from nanonets_proxy.app.listening import Listening

if TYPE_CHECKING:
    from nanonets_proxy.server.connection.caller_connection import CallerConnection

ADMIN: Final = "/admin"
"""Stands for the admin listener, beside the names of environments."""

SendTo = Callable[[str, Message], None]
"""Sends a message to the gate of an environment in the other process."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a program gives away: a JSON document, and the connections in the order that it names."""

    document: Mapping[str, Any]
    connections: Sequence[socket.socket] = field(repr=False)


class Handover:
    """Gives away, or takes over, what a program serves."""

    def __init__(self, environments: Sequence[Environment], admin: Listening) -> None:
        self._environments = {environment.name: environment for environment in environments}
        self._admin = admin
        self._is_alone = asyncio.Event()  # no predecessor has requests
        self._is_alone.set()
        self._leave: Callable[[], None] | None = None
        self._lent: list[tuple[CallerConnection, socket.socket]] = []

    @property
    def listening(self) -> dict[str, Listening]:
        """The listeners of each environment and of the admin listener."""
        own = {name: environment.listening for name, environment in self._environments.items()}
        return own | {ADMIN: self._admin}

    @property
    def upstreams(self) -> dict[str, str]:
        """The upstream of each environment."""
        return {name: environment.gate_handover.upstream for name, environment in self._environments.items()}

    # --- to the successor -------------------------------------------------------------------------

    def give(self, successor: Mapping[str, str], send: SendTo) -> Offer:
        """Stops accepting, and gives away idle connections and gates. `successor` has the other's `upstreams`.

        An environment that the successor lacks, or has for another upstream or fleet, keeps its gate until its end.
        """
        gates, owners = {}, []
        for name, listening in self.listening.items():
            listening.pause()
            if name == ADMIN or name in successor:
                lent = listening.server.lend_idle()
                self._lent += lent
                owners += [name] * len(lent)
        for name, environment in self._environments.items():
            if successor.get(name) == environment.gate_handover.upstream:
                gates[name] = environment.gate_handover.give(_sender(send, name))
        return Offer({"gates": gates, "connections": owners}, [sock for _, sock in self._lent])

    def receive_from_successor(self, environment: str, message: Message) -> None:
        """Passes on a message to the gate of an environment."""
        self._environments[environment].gate_handover.receive_from_successor(message)

    async def take_back(self) -> None:
        """Serves again as before: the successor did not start."""
        for connection, sock in self._lent:
            sock.close()
            connection.flow.let_go()
        self._lent.clear()
        self.go_on_alone()
        for listening in self.listening.values():
            await listening.resume()

    def go_on_alone(self) -> None:
        """Lets the gates of this process decide again."""
        for environment in self._environments.values():
            environment.gate_handover.take_back()

    def let_go(self) -> None:
        """Closes this process's descriptors of all that the successor serves now."""
        for connection, sock in self._lent:
            sock.close()
            connection.displace()
        self._lent.clear()
        for listening in self.listening.values():
            listening.let_go()

    async def finish(self, timeout_s: float) -> None:
        """Serves the remaining connections until they end, for at most `timeout_s`.

        A predecessor that still finishes ends before: its messages pass through this process.
        """
        servers = [environment.finish(timeout_s) for environment in self._environments.values()]
        await asyncio.gather(*servers, self._admin.server.finish(timeout_s))
        await wait_at_most(self._is_alone, timeout_s)

    # --- from the predecessor ---------------------------------------------------------------------

    def take_gates(self, document: Mapping[str, Any], send: SendTo, leave: Callable[[], None]) -> None:
        """Takes the gates over, before the first request. Raises ValueError if the document is unusable.

        `leave` lets the predecessor decide over its requests itself.
        """
        self._is_alone.clear()
        self._leave = leave
        for name, gate in document["gates"].items():
            self._environments[name].gate_handover.take(gate, _sender(send, name))

    async def take_connections(self, owners: Sequence[str], connections: Sequence[socket.socket]) -> None:
        """Serves connections that the predecessor had accepted.

        All at once: each takes some turns of the event loop, which under load are long.
        """
        listening = self.listening
        await asyncio.gather(
            *(listening[name].server.adopt(sock) for name, sock in zip(owners, connections, strict=True))
        )

    def lose_predecessor(self) -> None:
        """Ends the predecessor's requests in the gates: it has ended."""
        self._is_alone.set()
        for environment in self._environments.values():
            environment.gate_handover.lose_predecessor()

    async def outlast_predecessor(self, timeout_s: float) -> None:
        """Leaves its requests to the predecessor, if it still has some, and waits for its end."""
        if self._leave is None or self._is_alone.is_set():
            return
        self._leave()
        await wait_at_most(self._is_alone, timeout_s)

    def receive_from_predecessor(self, environment: str, message: Message) -> None:
        """Passes on a message to the gate of an environment."""
        self._environments[environment].gate_handover.receive_from_predecessor(message)


def _sender(send: SendTo, environment: str) -> Callable[[Message], None]:
    return lambda message: send(environment, message)
