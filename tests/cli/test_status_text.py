"""The status document as text."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from nanonets_proxy.cli.status_text import Style, one_line, status_text
from nanonets_proxy.core.status.document import (
    CallerUsage,
    EnvironmentStatus,
    FleetStatus,
    GateStatus,
    JobsStatus,
    KeyEntry,
    KeysStatus,
    LaneEntry,
    Problem,
    RequestCounts,
    ScopeEntry,
    State,
    StatusDocument,
    Usage,
)

PLAIN = Style(100, colored=False)
HOSTILE = "evil\x1b[31m\x9b31m\r\nname"
HOSTILE_SHOWN = r"evil\x1b[31m\x9b31m\r\nname"
DISK = Problem("disk", 1, 5, is_alert=True, caller="", request_id="", advice="make room")
_STATE = State("waiting_for_upstream", "limit", "Waiting for Nanonets: 2 callers, next permit in 23 s.")


def _document(**changes: Any) -> dict[str, Any]:
    """Returns a document of one environment that waits; `changes` replace fields of the environment."""
    scope = ScopeEntry("account", "closed", 23.0, 60.0, 60.0, 8.0, 0.0, quota_used_up=False, waiting=2, in_flight=0)
    lanes = (LaneEntry(HOSTILE, "account", 1, 83.0), LaneEntry("b" * 64, "account", 1, None))
    fields: dict[str, Any] = {
        "name": "",
        "upstream": "https://app.nanonets.com",
        "state": _STATE,
        "gate": GateStatus(2, 2, 10_000, 0, 256, 23.0, (scope,), 1, lanes, 30),
        "keys": KeysStatus(
            "env",
            "serving",
            is_rejected=False,
            keys=(KeyEntry("env", "0a1b2c3d", "active", 90_000),),
            warnings=("a warning",),
            source_fault="a fault",
        ),
        "requests": RequestCounts(60, 1.5, (1, 2), (0, 1), (0, 0), (0, 3), (1, 0), (0.0, 1.0), (0.1, 0.1)),
        "problems": (
            Problem("upstream_404", 3, 61, is_alert=False, caller=HOSTILE, request_id="id", advice="Do this."),
            DISK,
            replace(DISK, kind="key_old", advice="rotate it", sentence=f"Key of {HOSTILE}: 91 days."),
            replace(DISK, kind="ledger_stopped", reason=f"{HOSTILE}: the disk is full"),
            replace(DISK, kind="unexpected_response", what="html", advice="look for a captive portal"),
        ),
        "caller_connections": Usage(3, 12_000),
        "idle_upstream_connections": 1,
        "body_memory_bytes": Usage(1024, 64 * 2**20),
        "body_spool_bytes": Usage(0, 2**40),
        "usage": (CallerUsage("billing", 12, 34.5),),
        "jobs": JobsStatus(Usage(2, 10_000), 1, 3, 0, 1, 5, Usage(4096, 2**30)),
    }
    environment = EnvironmentStatus(**(fields | changes))
    document = StatusDocument(
        1, "0.1.0", "2026-11-29T02:00:00.000Z", 125, _STATE, 1024, is_shortened=True, environments=(environment,)
    )
    loaded: dict[str, Any] = json.loads(json.dumps(asdict(document)))
    return loaded


def test_the_text_has_each_part() -> None:
    assert status_text(_document(), PLAIN).splitlines() == [
        "nanonets-proxy 0.1.0, up 2 min 5 s, 2026-11-29T02:00:00.000Z",
        "",
        "Waiting for Nanonets: 2 callers, next permit in 23 s.",
        "look at      Nanonets' rate limit",
        "upstream     https://app.nanonets.com, 1 idle",
        "in flight    0 of 256",
        "waiting      2 from 2 callers, next permit in 23 s",
        "last hour    3 served, 1 4xx, 0 429, 3 5xx, 1 caller gone; now 1.5 requests per second",
        "connections  3 of 12000 from callers",
        "body copies  1 KiB of 64 MiB in memory, 0 B of 1 TiB on disk",
        "jobs         2 queued, the oldest for 5 s; 1 sending, 3 done, 0 failed, 1 unknown; 4 KiB of 1 GiB on disk",
        "",
        "limits   state   learned                   opens in  waiting  in flight",
        "account  closed  60 in 1 min, 8 in flight  23 s      2        0",
        "",
        "queue                                                             scope    waiting  ends in",
        f"{HOSTILE_SHOWN:<64}  account  1        1 min 23 s",
        f"{'b' * 64}  account  1        unknown",
        "  and 28 more",
        "",
        "keys  fingerprint  state   age",
        "env   0a1b2c3d     active  1 d 1 h",
        "             a fault",
        "             a warning",
        "",
        "used today  requests  pages",
        "billing     12        34.5",
        "",
        "problems",
        "  upstream_404: Do this.",
        f"    3 times, last 1 min 1 s ago, caller {HOSTILE_SHOWN}, request id",
        "  disk: make room",
        "    1 time, last 5 s ago",
        f"  key_old: Key of {HOSTILE_SHOWN}: 91 days.",
        "    rotate it",
        "    1 time, last 5 s ago",
        f"  ledger_stopped: {HOSTILE_SHOWN}: the disk is full",
        "    make room",
        "    1 time, last 5 s ago",
        "  unexpected_response (html): look for a captive portal",
        "    1 time, last 5 s ago",
        "",
        "The lists are shortened, because there are many environments.",
    ]


def test_a_quiet_environment_has_no_tables() -> None:
    text = status_text(
        _document(
            state=State("idle", None, "Ready."),
            gate=GateStatus(0, 0, 10_000, 0, 256, None, (), 1000, (), 0),
            keys=KeysStatus("env", "serving", is_rejected=False, keys=(), warnings=(), source_fault=None),
            problems=(),
            usage=None,
            jobs=None,
        ),
        PLAIN,
    )
    for title in ("look at", "limits", "queue", "keys", "problems", "used today", "jobs"):
        assert title not in text
    assert "waiting      0\n" in text


def test_a_name_gives_way_if_the_terminal_is_narrow() -> None:
    text = status_text(_document(), Style(60, colored=False))
    (line,) = [line for line in text.splitlines() if line.startswith("bbb")]
    assert "…" in line
    assert len(line) <= 60


def test_no_name_reaches_the_terminal_as_a_control_sequence() -> None:
    for text in (
        status_text(_document(name=HOSTILE, upstream=HOSTILE), PLAIN),
        one_line(_document(name=HOSTILE, state=State("idle", None, HOSTILE))),
    ):
        assert [char for char in text if not char.isprintable() and char != "\n"] == []


@pytest.mark.parametrize(
    ("cause", "color"), [(None, "32"), ("limit", "33"), ("proxy", "31"), ("key", "31"), ("upstream", "31")]
)
def test_the_color_of_the_state_follows_its_cause(cause: str | None, color: str) -> None:
    text = status_text(_document(state=State("x", cause, "A sentence.")), Style(100, colored=True))
    assert f"\x1b[1;{color}mA sentence.\x1b[0m" in text


def test_one_line_names_each_environment() -> None:
    assert one_line(_document()) == f"2026-11-29T02:00:00.000Z {_STATE.sentence}\n"
    assert one_line(_document(name="eu")) == f"2026-11-29T02:00:00.000Z eu: {_STATE.sentence}\n"


def test_a_permit_may_depend_on_the_next_response() -> None:
    text = status_text(_document(gate=GateStatus(3, 1, 10_000, 256, 256, None, (), 0, (), 0)), PLAIN)
    assert "waiting      3 from 1 caller, next permit at the next response\n" in text


@pytest.mark.parametrize(
    ("fleet", "line"),
    [
        (FleetStatus("leads", 3), "fleet        leads, 3 replicas\n"),
        (FleetStatus("follows", 1), "fleet        follows, 1 replica\n"),
        (FleetStatus("alone", 3), "fleet        alone, with its share of 3 replicas\n"),
    ],
)
def test_a_replica_of_a_fleet_says_whether_it_leads_follows_or_is_alone(fleet: FleetStatus, line: str) -> None:
    gate = GateStatus(0, 0, 10_000, 0, 256, None, (), 1, (), 0, fleet)
    assert line in status_text(_document(gate=gate), PLAIN)
    assert "fleet" not in status_text(_document(), PLAIN)


def test_the_leader_grants_a_followers_next_permit() -> None:
    gate = GateStatus(3, 1, 10_000, 0, 256, None, (), 0, (), 0, FleetStatus("follows", 2))
    assert "waiting      3 from 1 caller, next permit from the leader of the fleet\n" in status_text(
        _document(gate=gate), PLAIN
    )


def test_an_unknown_limit_and_a_used_up_quota_say_so() -> None:
    scope = ScopeEntry("a", "closed", 0.0, None, None, None, 0.0, quota_used_up=True, waiting=0, in_flight=0)
    text = status_text(_document(gate=GateStatus(0, 0, 10_000, 0, 256, None, (scope,), 1, (), 0)), PLAIN)
    assert "a       quota used up  unknown  open      0        0" in text


def test_many_callers_are_not_counted_by_their_list_which_is_not_whole() -> None:
    """The document has the busiest callers alone."""
    document = _document()
    document["environments"][0]["usage"] = [
        {"caller": f"c{number}", "requests": 1, "pages": 0} for number in range(20)
    ]
    lines = status_text(document, PLAIN).splitlines()
    assert "  all callers: nanonets-proxy usage --by caller" in lines
    assert "  and 10 more" not in lines
