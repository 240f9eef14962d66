"""What a replica tells a leader: first its log, its closures, and the permits in use; then, which claims it has."""

from collections.abc import Mapping

from nanonets_proxy.admission.fleet.beliefs import Beliefs
from nanonets_proxy.admission.fleet.homes.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.room import FleetRoom


def make_hello(
    room: FleetRoom,
    places: int,
    epoch: int,
    beliefs: Beliefs,
    closures: Mapping[str, float],
    now_s: float,
) -> Message:
    """Returns the hello to the leader of `epoch`. `closures` has the end of each closure, by scope.

    `scopes` maps each scope to its grants, as (age, cost, number), and to how long it stays closed. `held` has the
    number, scope, lane, remaining wait, cost and age of each permit in use, and whether this leader knows of it.
    `refused` has the numbers of permits that this leader may count, and whose requests do not count. `logged` has
    (number in `scopes`, number of the permit) of those that it may count already.
    """
    ages = room.log.ages(now_s, epoch, beliefs.periods_s())
    scopes = {
        scope: [ages.get(scope, []), max(0.0, closures.get(scope, now_s) - now_s)] for scope in {*ages, *closures}
    }
    held = [
        [c.number, c.scope, c.lane, c.deadline_s - now_s, c.cost, now_s - c.granted_at_s, c.epoch == epoch]
        for c in room.held()
    ]
    return {
        "t": "hello",
        "places": places,
        "scopes": scopes,
        "held": held,
        "refused": room.in_doubt.refused(epoch),
        "logged": room.in_doubt.logged(epoch),
        "beliefs": beliefs.told(now_s),
    }


def make_alive(room: FleetRoom, places: int, remote: RemoteHome) -> Message:
    """Returns the message of a follower that is still there, with its places and the numbers of all its claims.

    `paused` has those of `held` that lend their place to others.
    """
    held = list(room.held())
    return {
        "t": "alive",
        "places": places,
        "held": [claim.number for claim in held],
        "paused": [claim.number for claim in held if claim.is_paused],
        "waits": remote.waiting(),
    }
