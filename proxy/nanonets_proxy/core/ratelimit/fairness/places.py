"""How the callers share the places in flight, and which scope has its turn for a free place.

A caller's *fair share* of the places is in proportion to its weight, among the callers that wait or hold a place.
Once more than half of the places are taken, a caller that holds its share or more gets no other place while a
caller below its share waits. If no such caller waits, any caller may have the place: no place stays free while a
request could use it.

A request whose caller sends its body too slowly is *paused*: it keeps its permit but gives its place back. It takes
a place again before the upstream gets the next bytes.

The scopes that can grant take turns. A scope is *deferred* while all lanes that wait in it hold their share.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.scope_state import MAX_STALE, ScopeState
from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState

_PAUSED, _ADMITTED = TicketState.PAUSED, TicketState.ADMITTED


@dataclass(eq=False, slots=True)
class LanePlaces:
    """The places of one lane, over all scopes."""

    name: str
    weight: int
    held: int = 0
    """The places that the lane's tickets take."""
    waiting: int = 0
    """Waiting and paused tickets."""
    resuming: dict[Ticket, None] = field(default_factory=dict)
    """Paused tickets that want their place back, in order."""
    parked_in: dict[ScopeState, None] = field(default_factory=dict)
    """Scopes whose queue passes over this lane."""


class Places:
    """Counts the places of each lane, and chooses who gets a free one."""

    __slots__ = (
        *("_active", "_deferred", "_lanes", "_resuming", "_total_weight", "_turns", "_weights"),
        *("in_flight", "total"),
    )

    def __init__(self, total: int, weights: Mapping[str, int]) -> None:
        self.in_flight = 0
        self.total = total
        """The number of places, taken or free."""
        self._weights = weights
        self._lanes: dict[str, LanePlaces] = {}  # the active lanes, which wait or hold a place, and some idle ones
        self._active = 0
        self._total_weight = 0  # of the active lanes
        self._turns: deque[ScopeState] = deque()  # scopes that could grant when last checked
        self._deferred: dict[ScopeState, None] = {}
        self._resuming: dict[LanePlaces, None] = {}  # lanes with tickets that want their place back

    def __len__(self) -> int:
        """Returns the number of lanes that wait or hold a place."""
        return self._active

    def change(self, total: int, weights: Mapping[str, int]) -> None:
        """Sets another number of places, and other weights. Places in use stay in use."""
        self.total = total
        self._weights = weights
        self._total_weight = 0
        for lane in self._lanes.values():
            lane.weight = weights.get(lane.name, 1)
            if lane.held or lane.waiting:
                self._total_weight += lane.weight
        for lane in self._lanes.values():
            if lane.parked_in:
                self._unpark_below_share(lane)

    # --- lanes and their places -------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self.in_flight >= self.total

    def enter(self, ticket: Ticket) -> None:
        """Notes that a ticket waits."""
        lane = self._lanes.get(ticket.lane) or self._add_lane(ticket.lane)
        if not lane.waiting and not lane.held:
            self._active += 1
            self._total_weight += lane.weight
        lane.waiting += 1

    def leave(self, ticket: Ticket) -> None:
        """Notes that a ticket waits no longer, and takes no place."""
        lane = self._lanes[ticket.lane]
        lane.waiting -= 1
        if not lane.held and not lane.waiting:
            self._active -= 1
            self._total_weight -= lane.weight

    def admit(self, ticket: Ticket) -> None:
        """Takes a free place for a ticket that waited."""
        lane = self._lanes[ticket.lane]
        lane.waiting -= 1
        lane.held += 1
        self.in_flight += 1

    def admit_at_once(self, ticket: Ticket) -> None:
        """Takes a free place for a ticket that did not wait."""
        lane = self._lanes.get(ticket.lane) or self._add_lane(ticket.lane)
        if not lane.waiting and not lane.held:
            self._active += 1
            self._total_weight += lane.weight
        lane.held += 1
        self.in_flight += 1

    def settle(self, ticket: Ticket) -> None:
        """Ends the permit of a ticket, paused or not."""
        lane = self._lanes[ticket.lane]
        if ticket.state is _PAUSED:
            lane.waiting -= 1
            self._end_resuming(lane, ticket)
        else:
            lane.held -= 1
            self.in_flight -= 1
            if lane.parked_in:
                self._unpark_below_share(lane)
        if not lane.held and not lane.waiting:
            self._active -= 1
            self._total_weight -= lane.weight

    def pause(self, ticket: Ticket) -> None:
        """Frees the place of an admitted ticket."""
        ticket.state = _PAUSED
        lane = self._lanes[ticket.lane]
        lane.waiting += 1
        lane.held -= 1
        self.in_flight -= 1
        self._unpark_below_share(lane)

    def resume(self, ticket: Ticket, even_if_full: bool = False) -> bool:
        """Takes a place for a paused ticket. If none is free, the ticket waits for it, and the result is False."""
        lane = self._lanes[ticket.lane]
        if even_if_full or not self.is_full:
            ticket.state = _ADMITTED
            self.admit(ticket)
            return True
        lane.resuming[ticket] = None
        self._resuming[lane] = None
        return False

    def _has_share(self, lane: LanePlaces) -> bool:
        """Returns whether the lane holds its fair share of the places, and at least one."""
        return bool(lane.held) and lane.held * self._total_weight >= self.total * lane.weight

    def _unpark_below_share(self, lane: LanePlaces) -> None:
        """Lets the queues that passed over the lane consider it again, if it is below its share now."""
        if not self._has_share(lane):
            for scope in lane.parked_in:
                scope.queue.unpark(lane.name)
                if scope in self._deferred:
                    del self._deferred[scope]
                    self._turns.append(scope)
            lane.parked_in.clear()

    def _add_lane(self, name: str) -> LanePlaces:
        """Adds a lane. Forgets the idle lanes once there are many."""
        if len(self._lanes) > 2 * self._active + MAX_STALE:
            self._lanes = {lane.name: lane for lane in self._lanes.values() if lane.held or lane.waiting}
        lane = self._lanes[name] = LanePlaces(name, self._weights.get(name, 1))
        return lane

    def _resume_first(self, lane: LanePlaces) -> Ticket:
        ticket = next(iter(lane.resuming))
        self._end_resuming(lane, ticket)
        ticket.state = _ADMITTED
        self.admit(ticket)
        return ticket

    def _end_resuming(self, lane: LanePlaces, ticket: Ticket) -> None:
        lane.resuming.pop(ticket, None)
        if not lane.resuming:
            self._resuming.pop(lane, None)

    # --- turns ------------------------------------------------------------------------------------

    @property
    def scopes_wait(self) -> bool:
        """Whether a scope could grant when it was last checked."""
        return bool(self._turns or self._deferred)

    @property
    def is_wanted(self) -> bool:
        """Whether a scope or a paused ticket may want a free place."""
        return bool(self._turns or self._deferred or self._resuming)

    def add_scope(self, scope: ScopeState) -> None:
        """Gives turns to a scope that can grant."""
        scope.in_turns = True
        self._turns.append(scope)

    def next_turn(self) -> ScopeState | Ticket | None:
        """Returns the scope whose turn it is, or a paused ticket that has a place again; None if none waits.

        If the scope grants, `end_turn` must follow. Otherwise the scope has no turns until `add_scope`.
        """
        if self._resuming:
            lane = next(iter(self._resuming))
            if not self._has_share(lane) or not self.scopes_wait:
                return self._resume_first(lane)
            del self._resuming[lane]
            self._resuming[lane] = None
        while self._turns:
            scope = self._turns.popleft()
            scope.is_deferred = 2 * self.in_flight > self.total and not self._park_lanes(scope)
            if not scope.is_deferred:
                scope.in_turns = False
                return scope
            self._deferred[scope] = None
        if self._deferred:
            scope = next(iter(self._deferred))
            del self._deferred[scope]
            scope.is_deferred = not self._park_lanes(scope)
            scope.in_turns = False
            return scope
        return self._resume_first(next(iter(self._resuming))) if self._resuming else None

    def end_turn(self, scope: ScopeState) -> None:
        """Gives further turns to a scope that has just granted."""
        scope.in_turns = True
        if scope.is_deferred:
            self._deferred[scope] = None
        else:
            self._turns.append(scope)

    def forget_idle_scopes(self) -> None:
        """Ends the turns of scopes without waiting tickets."""
        for scope in (*self._turns, *self._deferred):
            scope.in_turns = scope.waiting > 0
        self._turns = deque(scope for scope in self._turns if scope.in_turns)
        self._deferred = {scope: None for scope in self._deferred if scope.in_turns}
        for lane in self._lanes.values():
            lane.parked_in = {scope: None for scope in lane.parked_in if scope.waiting}

    def _park_lanes(self, scope: ScopeState) -> bool:
        """Passes over the lanes that have their share of the places. Returns whether another lane waits."""
        queue = scope.queue
        while queue.waiting and (name := queue.unparked_lane()) is not None:
            lane = self._lanes[name]
            if not self._has_share(lane):
                return True
            queue.park()
            lane.parked_in[scope] = None
        return False
