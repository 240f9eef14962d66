"""A body whose copy was discarded: the log says why, and the caller gets a marked 429."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

TOO_MANY = b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
BODY = bytes(300_000)


@pytest.mark.parametrize(
    ("cause", "given", "fields"),
    [
        ("replay_limit", {"replay_limit": "64KiB"}, {"replay_limit_bytes": 65536}),
        ("spool_total", {"spool_total": "64KiB", "body_memory": "64KiB"}, {"spool_total_bytes": 65536}),
        ("disk", {"body_memory": "64KiB"}, {"error": "No such file or directory"}),
    ],
)
async def test_a_lost_copy_is_an_alert_and_marks_the_429(
    cause: str, given: dict[str, Any], fields: dict[str, Any], tmp_path: Path
) -> None:
    spool_dir = tmp_path / "spool"
    spool_dir.mkdir()
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(TOO_MANY)) as upstream,
            running_proxy(upstream.origin, spool_dir=str(spool_dir), **given) as proxy,
            await proxy.caller() as caller,
        ):
            if cause == "disk":
                spool_dir.rmdir()
            for _ in range(3):
                response = await caller.post(b"/x", BODY)
                assert response.status == 429
                (mark,) = response.values(b"Proxy-Status")
                expected = f'nanonets-proxy; received-status=429; details="body_copy_discarded: {cause}"'
                assert mark == expected.encode()
                proxy.proxy._gate.scopes.restore([], 0.0, 0.0)
            labels = {"event": "body_copy_discarded", "kind": cause}
            count = proxy.proxy.metrics.registry.get_sample_value("nanonets_proxy_alerts_total", labels)
            assert count == 3
            (alert,) = proxy.proxy.alerts.to_json()
        (event,) = log.events("body_copy_discarded")
        requests = log.events("request")
    assert (event["level"], event["cause"]) == ("warning", cause)
    assert fields.items() <= event.items()
    assert cause in event["advice"] or cause == "disk"
    assert (alert["event"], alert["cause"], alert["times"]) == ("body_copy_discarded", cause, 3)
    assert [entry["details"] for entry in requests] == [{"reason": f"body_copy_discarded: {cause}"}] * 3


async def test_a_copy_for_which_no_file_is_left_is_an_alert_with_the_cure(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, spool_dir=str(tmp_path), body_memory="64KiB", pool_size=1) as proxy,
        await proxy.caller() as caller,
    ):
        proxy.proxy._upstream.bodies.spool_files += 2
        assert (await caller.post(b"/x", BODY)).status == 200
        proxy.proxy._upstream.bodies.spool_files -= 2
        (alert,) = proxy.proxy.alerts.to_json()
    assert (alert["cause"], alert["error"]) == ("disk", os.strerror(errno.EMFILE))
    assert "ulimit -n" in alert["advice"]


async def test_a_copy_that_cannot_be_read_back_is_an_error_response_and_an_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(TOO_MANY, OK)) as upstream,
            running_proxy(upstream.origin, spool_dir=str(tmp_path), body_memory="64KiB") as proxy,
            await proxy.caller() as caller,
        ):
            monkeypatch.setattr(os, "pread", failing)
            response = await caller.post(b"/x", BODY)
            assert (response.status, response.json()["code"]) == (500, "internal_error")
            assert response.json()["details"]["reason"] == "disk"
        (event,) = log.events("body_copy_discarded")
        (line,) = log.events("request")
        assert not log.events("request_failed"), "a failing disk is no defect, so the log needs no traceback"
    assert event["error"] == "Input/output error"
    assert (line["level"], line["details"]) == ("error", {"reason": "disk"})
