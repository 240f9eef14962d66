"""What an operator learns of a ledger that cannot be used."""

from pathlib import Path

import orjson

from support.eventually import until
from support.log_capture import captured_log
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import OK, ScriptedUpstream, responding

_DAMAGED = b"SQLite format 3\0" + b"no database" * 1000


async def _problems(proxy: RunningProxy) -> dict[str, str]:
    """Returns the advice of each alert in the status."""
    async with await RawCaller.connect(proxy.admin_address) as admin:
        status = orjson.loads((await admin.get(b"/status")).body)
    return {problem["kind"]: problem["advice"] for problem in status["environments"][0]["problems"]}


async def test_a_damaged_ledger_is_an_alert_with_its_new_name_and_the_budget_counts_from_0(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = folder / "usage.db"
    path.write_bytes(_DAMAGED)
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, ledger=str(path), daily_budget="billing: 10") as proxy,
        await proxy.caller() as caller,
    ):
        await until(lambda: path.with_name("usage.db.bad").exists())
        assert (await caller.get(b"/x")).status == 200
        alerts = proxy.program.environments[0].alerts
        await until(lambda: any(alert["event"] == "ledger_put_aside" for alert in alerts.to_json()))
        found = {alert["event"]: alert for alert in alerts.to_json()}
        aside = found["ledger_put_aside"]
        assert aside["aside"] == f"{path}.bad"
        assert (aside["path"], aside["reason"]) == (str(path), "is damaged, or no database")
        assert "is damaged" in found["budget_not_restored"]["reason"]
        problems = await _problems(proxy)
        assert f"{path}.bad, and a new one has begun: look for the cause" in problems["ledger_put_aside"]
        assert problems["budget_not_restored"].endswith("once the file can be read or is restored")


async def test_a_ledger_that_is_a_directory_is_an_alert_with_the_advice_to_name_a_file(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, ledger=str(tmp_path)) as proxy,
    ):
        alerts = proxy.program.environments[0].alerts
        await until(lambda: bool(alerts.to_json()))
        (alert,) = alerts.to_json()
        assert (alert["event"], alert["reason"]) == ("ledger_stopped", "cannot be used: is a directory")
        assert alert["advice"].startswith("name a file that the proxy may write, ")


async def test_a_process_that_ends_without_writing_its_ledger_says_how_much_is_lost(tmp_path: Path) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, ledger=str(tmp_path)) as proxy,
            await proxy.caller() as caller,
        ):
            for _ in range(3):
                assert (await caller.get(b"/x")).status == 200
        (event,) = log.events("ledger_not_written")
        assert (event["lost"], event["path"]) == (3, str(tmp_path))
        assert event["reason"] == "cannot be used: is a directory"
