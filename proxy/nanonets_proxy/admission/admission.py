"""The port between requests and the gate: one gate in this process, or one gate for a fleet of replicas."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket

if TYPE_CHECKING:
    import asyncio


class Admission(Protocol):
    """Lets requests wait for their permits. `waiting_room.WaitingRoom` describes each method."""

    def change_policy(self, policy: GatePolicy) -> None: ...

    def try_admit(self, ticket: Ticket, now_s: float) -> bool: ...

    def enter(
        self, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None
    ) -> "asyncio.Future[None] | None": ...

    def leave(self, ticket: Ticket) -> None: ...

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        retry_after_s: float | None = None,
        quota_used_up: bool = False,
    ) -> None: ...

    def correct_cost(self, ticket: Ticket, cost: float) -> None: ...

    def note_advice(self, ticket: Ticket, advice: Advice) -> None: ...

    def pause(self, ticket: Ticket, give_up: Callable[[], None]) -> None: ...

    async def resume(self, ticket: Ticket) -> None: ...

    def close(self) -> None: ...
