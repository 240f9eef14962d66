"""Key rotation under load. `make bench-rotation` runs the same for longer."""

from pathlib import Path

import pytest

from support.commands.rotation import Ending, Load, rotate_under_load


@pytest.mark.parametrize("ending", Ending)
async def test_no_caller_sees_a_rotation(ending: Ending, tmp_path: Path) -> None:
    load = Load(rotations=5, duration_s=2.5, requests_per_s=100)
    outcome, proxy = await rotate_under_load(load, ending, tmp_path)
    assert set(outcome.statuses) <= {200, 201}, str(outcome)
    assert sum(outcome.statuses.values()) >= 5 * load.rotations
    active = [event for event in proxy.all_events() if event["event"] == "key_active"]
    assert active[-1]["fingerprint"] != active[0]["fingerprint"]
    assert b"key-4" not in proxy.stdout + proxy.stderr
