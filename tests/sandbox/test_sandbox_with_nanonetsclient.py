"""The published client works against the sandbox, call by call."""

import asyncio
from collections import Counter

from nanonetsclient import NanonetsClient


async def test_every_call_of_the_client_works_and_none_is_left_out(start, http, run_every_client_call):
    base = await start(pending_polls=2)
    called = await asyncio.to_thread(run_every_client_call, f"{base}/api/v4", "sandbox-key")
    offered = {name for name in vars(NanonetsClient.Workflows) if not name.startswith("_")}
    assert set(called) == offered
    stats = await (await http.get(f"{base}/sandbox/stats")).json()
    assert stats["admitted"] == len(called)
    assert stats["unauthorized"] == stats["refused"] == stats["failed"] == stats["in_flight"] == 0


async def test_the_client_is_refused_with_a_wrong_key(start, http, run_every_client_call):
    base = await start()
    outcome = Counter()
    for key in ("wrong", ""):
        try:
            await asyncio.to_thread(run_every_client_call, f"{base}/api/v4", key)
        except OSError as exc:  # requests' HTTPError is one
            outcome[exc.response.status_code] += 1
    assert outcome == {401: 2}
    stats = await (await http.get(f"{base}/sandbox/stats")).json()
    assert (stats["unauthorized"], stats["admitted"]) == (2, 0)
