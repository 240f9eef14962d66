"""`daily_budget` counts in the whole fleet, in virtual time and with real proxies."""

import asyncio
import json
import random
import time
import urllib.error
import urllib.request
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.redis_server import RedisServer
from nanonets_proxy.admission.fleet.bequest import give, take
from nanonets_proxy.admission.fleet.counts_post import CountsPost
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.daily_budget import DailyBudget
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.usage.rollups import DAY_S
from support.commands.fleet_proxies import PATH, coordinated, fleet, until
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryRedis
from support.gate.virtual_loop import run_virtually

NOON_S = 20_000.5 * 86_400


class Budgets:
    """One daily budget in each replica of a scene."""

    def __init__(self, scene: FleetScene, limit: int) -> None:
        self.scene = scene
        self.limit = limit
        self.budgets: list[DailyBudget] = []
        self.served = 0
        self.follow()

    def follow(self) -> None:
        """Gives new replicas their budget."""
        for replica in self.scene.replicas[len(self.budgets) :]:
            budget = DailyBudget([BudgetRule(None, self.limit)])
            budget.share(replica.counts.shared)
            self.budgets.append(budget)

    def take(self, number: int) -> bool:
        is_served = self.budgets[number].take("a", NOON_S + self.scene.loop.time()) is None
        self.served += is_served
        return is_served


def test_the_present_day_is_that_of_the_wall_clock() -> None:
    """A replica that has counted nothing yet hears of days that are years ahead."""
    counts = CountsPost(SharedCounts("1", str), lambda *_: None, Mock())
    today = int(time.time() // DAY_S)
    counts.hear_counts([("2", day, "a", 1, 1) for day in (today, *range(90_000, 90_005))])
    assert today in {day for _, day, *_ in counts.shared.everything()}


def test_a_budget_holds_for_all_replicas_together_and_for_new_ones() -> None:
    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        budgets = Budgets(scene, 100)
        for turn in range(60):
            assert budgets.take(turn % 3)
        await asyncio.sleep(0.1)
        await scene.add().start(1.0)
        budgets.follow()
        for _ in range(40):
            assert budgets.take(3)
        await asyncio.sleep(0.1)
        assert [budgets.take(number) for number in range(4)] == [False] * 4
        await scene.stop()

    run_virtually(main())


def test_a_fleet_that_starts_again_as_a_whole_remembers_its_budgets() -> None:
    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        budgets = Budgets(scene, 10)
        assert all(budgets.take(turn % 2) for turn in range(6))
        await asyncio.sleep(2.0)
        for number in range(2):
            scene.kill(number)
        await asyncio.sleep(2.0)
        await asyncio.gather(*(scene.add().start(1.0) for _ in range(2)))
        budgets.follow()
        assert [budgets.take(2) for _ in range(5)] == [True] * 4 + [False]
        await scene.stop()

    run_virtually(main())


def test_while_redis_is_away_each_replica_uses_its_part_and_none_is_lost_afterwards() -> None:
    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        budgets = Budgets(scene, 100)
        assert all(budgets.take(0) for _ in range(10))
        await asyncio.sleep(0.5)
        scene.redis.stop()
        scene.redis.flush_all()
        await asyncio.sleep(1.0)
        assert [sum(budgets.take(number) for _ in range(100)) for number in range(2)] == [30, 30]
        assert budgets.budgets[0].is_part
        scene.redis.come_back()
        await asyncio.sleep(2.0)
        assert sum(budgets.take(0) for _ in range(100)) == 30
        await asyncio.sleep(0.1)
        assert [budgets.take(number) for number in range(3)] == [False] * 3
        await scene.stop()

    run_virtually(main())


def used(replica: Replica) -> int:
    """Returns how many requests a replica knows of."""
    return sum(count for _, _, _, count, _ in replica.counts.shared.everything())


def restart(scene: FleetScene, budgets: Budgets, number: int, *, has_ledger: bool) -> int:
    """Replaces the process of the only replica with requests. Returns the number of the new one."""
    old, heir, now_s = scene.replicas[number], scene.add(), scene.loop.time()
    budget = DailyBudget([BudgetRule(None, budgets.limit)])
    if has_ledger:
        budget.restore({int(NOON_S // DAY_S): {"a": budgets.served}})
    budget.share(heir.counts.shared)
    budgets.budgets.append(budget)
    take(heir, json.loads(json.dumps(give(old, now_s))), now_s)
    return len(scene.replicas) - 1


@pytest.mark.parametrize("has_ledger", [True, False])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_process_that_is_replaced_while_redis_is_away_leaves_what_is_left_of_its_part(
    replicas: int, *, has_ledger: bool
) -> None:
    """The new process has no part of its own. What both its ledger and the earlier process know counts once."""

    async def main() -> None:
        scene = FleetScene(replicas, None)
        await scene.start()
        budgets = Budgets(scene, 100)
        assert sum(budgets.take(0) for _ in range(40)) == 40
        await asyncio.sleep(2.0)
        scene.redis.stop()
        await asyncio.sleep(1.0)
        process, found = 0, []
        for most in (8, 0, 8):
            found.append(sum(budgets.take(process) for _ in range(most)))
            await asyncio.sleep(0.1)
            process = restart(scene, budgets, process, has_ledger=has_ledger)
        found.append(sum(budgets.take(process) for _ in range(100)))
        assert found == [8, 0, 8, 60 // replicas - 16]
        await scene.stop()

    run_virtually(main())


def test_all_replicas_learn_what_a_process_counted_that_was_replaced_while_redis_was_away() -> None:
    """Only the new process knows it."""

    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        budgets = Budgets(scene, 100)
        number = (scene.leader + 1) % 3
        assert all(budgets.take(number) for _ in range(10))
        await asyncio.sleep(1.0)
        scene.redis.stop()
        await asyncio.sleep(1.0)
        assert sum(budgets.take(number) for _ in range(100)) == 30
        heir = scene.replicas[restart(scene, budgets, number, has_ledger=False)]
        scene.kill(number)
        heir.campaign.run = Mock()  # type: ignore[method-assign] # another one leads
        await heir.start(0.0)
        scene.redis.come_back()
        await asyncio.sleep(3.0)
        assert heir.state is State.FOLLOWING
        living = [replica for replica in scene.replicas if replica is not scene.replicas[number]]
        assert [used(replica) for replica in living] == [40] * 3
        await scene.stop()

    run_virtually(main())


def test_a_newcomer_that_leads_at_an_empty_server_learns_what_replicas_counted_that_are_gone() -> None:
    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        budgets = Budgets(scene, 100)
        assert all(budgets.take(0) for _ in range(80))
        await asyncio.sleep(1.0)
        scene.kill(0)
        await asyncio.sleep(3.0)
        earlier, scene.redis = scene.redis, MemoryRedis(chance=scene.random)
        newcomer = scene.add()
        await newcomer.start(1.0)
        budgets.follow()
        for bus in earlier.buses[1:]:
            bus.move(scene.redis, scene.loop.time() + 0.3)
        await asyncio.sleep(2.0)
        assert newcomer.state is State.LEADING
        published = scene.redis.published
        assert sum(budgets.take(3) for _ in range(100)) == 20
        await asyncio.sleep(1.0)
        assert scene.redis.published - published <= 4 + 2 * 2 + 1
        await scene.stop()

    run_virtually(main())


def test_while_two_versions_are_here_all_replicas_divide_what_is_left_also_those_that_came_last() -> None:
    async def main() -> None:
        old = FleetScene(3, None)
        await old.start()
        old_budgets = Budgets(old, 120)
        assert all(old_budgets.take(turn % 3) for turn in range(90))
        await asyncio.sleep(3.0)
        new = FleetScene(0, None, seed=2, redis=old.redis.other_version())
        new_budgets = Budgets(new, 120)
        for _ in range(3):
            await new.add().start(1.0)
            new_budgets.follow()
            await asyncio.sleep(3.0)
            replicas = (*old.replicas, *new.replicas)
            assert {r.counts.shared._replicas for r in replicas} == {len(replicas)}
        assert [sum(new_budgets.take(number) for _ in range(120)) for number in range(3)] == [5, 5, 5]
        assert [sum(old_budgets.take(number) for _ in range(120)) for number in range(3)] == [5, 5, 5]
        await new.stop()
        await old.stop()

    run_virtually(main())


def test_a_fleet_without_budgets_sends_no_counts() -> None:
    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        await asyncio.sleep(5.0)
        published = scene.redis.published
        budgets = Budgets(scene, 1000)
        await asyncio.sleep(5.0)
        assert scene.redis.published - published <= 5 * (4 + 2) + 2
        for _ in range(100):  # within 50 ms: one message
            budgets.take(0)
            await asyncio.sleep(0.0004)
        before = scene.redis.published
        await asyncio.sleep(0.06)
        assert scene.redis.published - before <= 2
        await scene.stop()

    run_virtually(main())


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from((5, 60, 300)),
    st.lists(st.sampled_from(("down", "hang", "wipe")), max_size=3),
)
def test_no_fault_of_redis_lets_a_fleet_exceed_a_budget_by_more_than_what_is_underway(
    seed: int, limit: int, faults: list[str]
) -> None:
    """10 requests a second, everywhere. A silent Redis is noticed within 1 s, a closed connection at once."""

    async def main() -> None:
        chance, replicas = random.Random(seed), 3
        scene = FleetScene(replicas, None, seed=seed)
        await scene.start()
        budgets = Budgets(scene, limit)

        async def requests(seconds: float) -> None:
            for _ in range(int(10 * seconds)):
                budgets.take(chance.randrange(replicas))
                await asyncio.sleep(0.1)

        await requests(2.0)
        for fault in faults:
            match fault:
                case "down":
                    scene.redis.stop()
                case "hang":
                    scene.redis.hangs = True
                case "wipe":
                    scene.redis.flush_all()
            await requests(chance.uniform(0.0, 4.0))
            scene.redis.come_back()
            scene.redis.resume()
            await requests(2.0)
        await asyncio.sleep(3.0)
        # One more for each replica in each outage, and what began in the second before a silence was noticed.
        assert budgets.served <= limit + len(faults) * (replicas - 1 + 10)
        for _ in range(limit):
            budgets.take(chance.randrange(replicas))
            await asyncio.sleep(0.1)
        assert budgets.served >= limit
        assert [used(replica) for replica in scene.replicas] == [budgets.served] * replicas
        await scene.stop()

    run_virtually(main())


# --- real proxies ---------------------------------------------------------------------------------------


def ask(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url + PATH, timeout=60) as response:
            return response.status, {}
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.usefixtures("one_day")
@pytest.mark.system
def test_real_proxies_count_a_budget_together_and_say_when_they_cannot(redis: RedisServer) -> None:
    with fleet(redis, 2, "--daily-budget", "10", "--daily-budget", "127.0.0.1: 10", limit="none") as proxies:
        until(lambda: coordinated(proxies))
        first, second = proxies
        assert [ask(first.url)[0] for _ in range(6)] == [200] * 6
        until(lambda: ask(second.url)[0] == 429)
        redis.kill()
        until(lambda: not coordinated(proxies))
        status, body = ask(second.url)
        assert (status, body["code"]) == (429, "daily_budget_used_up")
