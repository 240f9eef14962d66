"""Runs every call of the published client against the sandbox."""

import asyncio

import pytest
import requests
from nanonetsclient import NanonetsClient


async def test_every_call_of_the_client_works(sandbox, run_every_client_call):
    client = await sandbox(pending_polls=2)
    called = await asyncio.to_thread(run_every_client_call, str(client.make_url("/api/v4")), "sandbox-key")
    public_methods = {name for name in vars(NanonetsClient.Workflows) if not name.startswith("_")}
    assert set(called) == public_methods
    stats = await (await client.get("/sandbox/stats")).json()
    assert stats["admitted"] == len(called)
    assert stats["unauthorized"] == stats["refused"] == stats["failed"] == stats["in_flight"] == 0


async def test_a_client_with_a_wrong_key_gets_401(sandbox, run_every_client_call):
    client = await sandbox()
    for key in ("wrong", ""):
        with pytest.raises(requests.HTTPError, match=r"^401 "):
            await asyncio.to_thread(run_every_client_call, str(client.make_url("/api/v4")), key)
    stats = await (await client.get("/sandbox/stats")).json()
    assert (stats["unauthorized"], stats["admitted"]) == (2, 0)
