"""What may happen to a fleet of real proxies: to its replicas, to its Redis, and failovers."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from fleet.proxies import Fleet, Over, signal_to
from fleet.redis_server import RedisServer
from support.commands.fleet_proxies import until
from support.commands.process import Running
from support.commands.redis_groups import SERVICE, Replicated, Servers
from support.commands.restarts import restarted

Choose = Callable[[Fleet], Running]


@dataclass(frozen=True)
class Event:
    name: str
    act: Callable[[Fleet], Running | None]
    """Lets the event happen. Returns the replica that it has ended."""
    over: Over = Over.ONE_SERVER


def leader(own: Fleet) -> Running:
    return own.leader


def follower(own: Fleet) -> Running:
    return own.follower


# --- replicas -------------------------------------------------------------------------------------------


def _end(choose: Choose, number: int) -> Callable[[Fleet], Running]:
    def act(own: Fleet) -> Running:
        proxy = choose(own)
        signal_to(proxy, number)
        return proxy

    return act


def _stand_still(choose: Choose, for_s: float) -> Callable[[Fleet], None]:
    def act(own: Fleet) -> None:
        proxy = choose(own)
        signal_to(proxy, signal.SIGSTOP)
        time.sleep(for_s)
        signal_to(proxy, signal.SIGCONT)

    return act


def _restart(choose: Choose) -> Callable[[Fleet], None]:
    def act(own: Fleet) -> None:
        restarted(choose(own))

    return act


# --- Redis ----------------------------------------------------------------------------------------------


def hang(redis: RedisServer, for_s: float) -> None:
    redis.signal(signal.SIGSTOP)
    time.sleep(for_s)
    redis.signal(signal.SIGCONT)


def be_away(redis: RedisServer, for_s: float) -> None:
    """Kills the server, which comes back empty."""
    redis.kill()
    time.sleep(for_s)
    redis.start()


def be_slow(redis: RedisServer, stands_s: float, for_s: float) -> None:
    """Lets the server stand still again and again, and work for 20 ms between."""
    ends_at_s = time.monotonic() + for_s
    while time.monotonic() < ends_at_s:
        hang(redis, stands_s)
        time.sleep(0.02)


def be_read_only(redis: RedisServer, for_s: float) -> None:
    """Lets the server be the replica of a dead one, as a former master after a failover."""
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    time.sleep(for_s)
    redis.ask("REPLICAOF", "NO", "ONE")


def be_full(redis: RedisServer, for_s: float) -> None:
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    time.sleep(for_s)
    redis.ask("CONFIG", "SET", "maxmemory", "0")


def be_wiped(redis: RedisServer) -> None:
    redis.ask("FLUSHALL")


# --- failovers ------------------------------------------------------------------------------------------


def fail_over(servers: Replicated, *, is_killed: bool) -> RedisServer:
    """Ends the master or lets it stand still until another server is the master. Returns the former one."""
    old = servers.master
    if is_killed:
        old.kill()
    else:
        old.signal(signal.SIGSTOP)
    until(lambda: _is_master(servers, old))
    if not is_killed:
        time.sleep(2)
        old.signal(signal.SIGCONT)  # for a moment it still takes itself for the master
    return old


def lose_last_second(servers: Replicated) -> RedisServer:
    """Fails over to a replica that has heard nothing for a second. Returns the former master."""
    servers.replica.ask("REPLICAOF", "127.0.0.1", "1")
    time.sleep(1)
    return fail_over(servers, is_killed=True)


def fail_over_by_hand(servers: Servers, sentinel: RedisServer) -> None:
    old = servers.master
    sentinel.ask("SENTINEL", "FAILOVER", SERVICE)
    until(lambda: _is_master(servers, old))


def _is_master(servers: Servers, other_than: RedisServer) -> bool:
    """Returns whether another server is the master now."""
    try:
        return servers.master is not other_than
    except (LookupError, OSError):  # there is none
        return False


def _of_redis(act: Callable[..., object], *args: float) -> Callable[[Fleet], None]:
    def on_master(own: Fleet) -> None:
        act(own.servers.master, *args)

    return on_master


def _of_servers(act: Callable[[Replicated], object]) -> Callable[[Fleet], None]:
    def on_servers(own: Fleet) -> None:
        act(cast("Replicated", own.servers))

    return on_servers


def _be_full_without_leader(own: Fleet) -> Running:
    redis = own.servers.master
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    return _end(leader, signal.SIGKILL)(own)


_KILL, _STOP = partial(fail_over, is_killed=True), partial(fail_over, is_killed=False)
EVENTS: Final = (
    Event("SIGKILL of a follower", _end(follower, signal.SIGKILL)),
    Event("SIGKILL of the leader", _end(leader, signal.SIGKILL)),
    Event("SIGTERM of a follower", _end(follower, signal.SIGTERM)),
    Event("SIGTERM of the leader", _end(leader, signal.SIGTERM)),
    Event("SIGSTOP of a follower for 3 s", _stand_still(follower, 3)),
    Event("SIGSTOP of the leader for 3 s", _stand_still(leader, 3)),
    Event("restart of a follower", _restart(follower)),
    Event("restart of the leader", _restart(leader)),
    Event("SIGKILL of Redis; back after 3 s", _of_redis(be_away, 3)),
    Event("SIGSTOP of Redis for 3 s", _of_redis(hang, 3)),
    Event("FLUSHALL", _of_redis(be_wiped)),
    Event("Redis is read-only for 5 s", _of_redis(be_read_only, 5)),
    Event("Redis is out of memory for 5 s", _of_redis(be_full, 5)),
    Event("Redis is out of memory; SIGKILL of the leader", _be_full_without_leader),
    Event("Redis stands still for 40 of each 60 ms for 10 s", _of_redis(be_slow, 0.04, 10)),
    Event("Redis stands still for 100 of each 120 ms for 10 s", _of_redis(be_slow, 0.1, 10)),
    Event("Sentinel: SIGKILL of the master", _of_servers(_KILL), Over.SENTINEL),
    Event("Sentinel: SIGSTOP of the master", _of_servers(_STOP), Over.SENTINEL),
    Event("Sentinel: a failover loses the last second", _of_servers(lose_last_second), Over.SENTINEL),
    Event("cluster: SIGKILL of the master", _of_servers(_KILL), Over.CLUSTER),
)
