"""A real proxy that is killed at random instants loses no job, and sends none twice."""

import random
from pathlib import Path

from support.commands.job_kills import KillRounds


async def test_killed_proxies_lose_no_job_and_send_none_twice(tmp_path: Path) -> None:
    kills = KillRounds(tmp_path, random.Random(1))
    await kills.run(5)
    assert kills.promised
    assert kills.states.total() == len(kills.promised)
