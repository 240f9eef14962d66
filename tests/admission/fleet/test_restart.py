"""`nanonets-proxy restart` of one replica of a fleet, under load and over a real Redis."""

import time
from contextlib import ExitStack

import pytest

from fleet.redis_server import RedisServer
from support.commands.fleet_proxies import Callers, coordinated, gauge, refusals, until
from support.commands.process import proxy_to, sandbox
from support.commands.restarts import replaceable_proxy, restarted

pytestmark = pytest.mark.system


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_restart_of_a_replica_fails_no_caller(redis: RedisServer, *, is_leader: bool) -> None:
    """`test_fleet.py` has the 429s: here, they depend on the load of the machine."""
    arguments = ("--coordination", redis.url, "--limits", "account 40/4s")
    with ExitStack() as stack:
        upstream = stack.enter_context(sandbox("--limit", "40/4s", "--limit-kind", "sliding"))
        if is_leader:
            proxy = stack.enter_context(replaceable_proxy(upstream, *arguments))
            until(lambda: coordinated([proxy]))
            other = stack.enter_context(proxy_to(upstream, *arguments))
        else:
            other = stack.enter_context(proxy_to(upstream, *arguments))
            until(lambda: coordinated([other]))
            proxy = stack.enter_context(replaceable_proxy(upstream, *arguments))
        proxies = [proxy, other]
        until(lambda: coordinated(proxies) and gauge(other, "nanonets_proxy_fleet_replicas") == 2)
        with Callers(proxies, 6) as callers:
            time.sleep(2)
            restarted(proxy)
            time.sleep(5)
        assert set(callers.statuses) == {200}
        until(lambda: coordinated(proxies) and gauge(other, "nanonets_proxy_fleet_replicas") == 2)


def test_a_restart_while_redis_is_away_keeps_to_the_share(redis: RedisServer) -> None:
    """The earlier process tells the new one over the inherited socket of how many replicas it knows."""
    arguments = ("--coordination", redis.url, "--limits", "account 40/4s")
    with ExitStack() as stack:
        upstream = stack.enter_context(sandbox("--limit", "40/3.9s", "--limit-kind", "sliding"))
        other = stack.enter_context(proxy_to(upstream, *arguments))
        until(lambda: coordinated([other]))
        proxy = stack.enter_context(replaceable_proxy(upstream, *arguments))
        proxies = [proxy, other]
        until(lambda: coordinated(proxies) and gauge(proxy, "nanonets_proxy_fleet_replicas") == 2)
        with Callers(proxies, 6) as callers:
            time.sleep(2)
            redis.kill()
            until(lambda: not coordinated(proxies[:1]) and not coordinated(proxies[1:]))
            restarted(proxy)
            assert gauge(proxy, "nanonets_proxy_fleet_replicas") == 2
            refused = refusals(upstream)
            time.sleep(9)
            assert refusals(upstream) <= refused + 3
            redis.start()
            until(lambda: coordinated(proxies))
        assert set(callers.statuses) == {200}
        until(lambda: gauge(other, "nanonets_proxy_fleet_replicas") == 2)
