"""The results of the command `check`, where no real server can give them in every environment."""

import json
from pathlib import Path

import pytest

from nanonets_proxy.admission.fleet.bus import check as bus
from nanonets_proxy.cli.check import as_json, check_environments
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from nanonets_proxy.settings import load_settings


@pytest.mark.parametrize("required", [False, True])
def test_a_server_of_the_fleet_that_is_away_is_a_warning_or_a_failure(
    monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    async def away(_: FleetPolicy) -> str:
        return "redis://127.0.0.1:1/0 cannot be reached"

    monkeypatch.setattr(bus, "check", away)
    flags = {"coordination": "redis://127.0.0.1:1/0", "coordination_required": required}
    loaded = load_settings(flags, {}, dirs=[], default_config=Path("/none"))
    document = json.loads(as_json(check_environments(loaded, {})))
    (found,) = [check for check in document["checks"] if check["name"] == "coordination"]
    assert (found["ok"], found["warning"]) == (not required, not required)
    assert found["detail"].endswith("would begin alone, and /readyz would say 503" if required else "begin alone")
