"""The status document as text: one block for each environment, with aligned columns.

Callers may have chosen names, so escapes replace the characters that a terminal would obey.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nanonets_proxy.core.status.state import duration
from nanonets_proxy.core.status.text import printable

_CAUSES: Final = {
    "proxy": "the proxy",
    "key": "the API key",
    "limit": "Nanonets' rate limit",
    "upstream": "Nanonets, or the way to it",
}
_RED, _YELLOW, _GREEN, _BOLD, _DIM = "31", "33", "32", "1", "2"
_COLORS: Final = {None: _GREEN, "limit": _YELLOW, "proxy": _RED, "key": _RED, "upstream": _RED}
_OUTCOMES: Final = (
    *(("served", "served"), ("client_errors", "4xx"), ("throttled", "429"), ("server_errors", "5xx")),
    ("gone", "caller gone"),
)
_MOST_SHOWN: Final = 10
_LABEL_WIDTH: Final = 13


@dataclass(frozen=True, slots=True)
class Style:
    """How wide the text may be, and whether it has colours."""

    width: int
    colored: bool

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colored else text


def one_line(document: dict[str, Any]) -> str:
    """Returns the time and the state of each environment, in one line."""
    states = [
        f"{printable(environment['name'])}: {environment['state']['sentence']}"
        if environment["name"]
        else environment["state"]["sentence"]
        for environment in document["environments"]
    ]
    return f"{document['time']} {' '.join(map(printable, states))}\n"


def status_text(document: dict[str, Any], style: Style) -> str:
    """Returns the whole status."""
    title = f"nanonets-proxy {document['version']}, up {duration(document['uptime_s'])}, {document['time']}"
    lines = [style.paint(printable(title), _DIM)]
    for environment in document["environments"]:
        lines += ["", *_environment(environment, style)]
    if document["is_shortened"]:
        lines += ["", "The lists are shortened, because there are many environments."]
    return "\n".join(lines) + "\n"


def _environment(environment: dict[str, Any], style: Style) -> Iterable[str]:
    state, gate, keys = environment["state"], environment["gate"], environment["keys"]
    if environment["name"]:
        yield style.paint(f"[{printable(environment['name'])}]", _BOLD)
    yield style.paint(printable(state["sentence"]), f"{_BOLD};{_COLORS.get(state['cause'], _RED)}")
    if state["cause"] is not None:
        yield _line("look at", _CAUSES.get(state["cause"], printable(state["cause"])))
    upstream, idle = printable(environment["upstream"]), environment["idle_upstream_connections"]
    yield _line("upstream", f"{upstream}, {idle} idle")
    yield _line("in flight", f"{gate['in_flight']} of {gate['max_in_flight']}")
    yield _line("waiting", _waiting(gate))
    if gate.get("fleet"):  # a proxy of an earlier release has none
        yield _line("fleet", _fleet(gate["fleet"]))
    yield _line("last hour", _last_hour(environment["requests"]))
    connections = environment["caller_connections"]
    yield _line("connections", f"{connections['used']} of {connections['limit']} from callers")
    memory, spool = environment["body_memory_bytes"], environment["body_spool_bytes"]
    yield _line("body copies", f"{_share(memory)} in memory, {_share(spool)} on disk")
    if (jobs := environment.get("jobs")) is not None:  # after an upgrade, the proxy that runs may have none
        yield _line("jobs", _jobs(jobs))
    yield from _limits_and_queue(gate, style)
    yield from _table(
        ("keys", "fingerprint", "state", "age"),
        [(key["name"], key["fingerprint"], key["state"], duration(key["age_s"])) for key in keys["keys"]],
        len(keys["keys"]),
        style,
    )
    for warning in (*([keys["source_fault"]] if keys["source_fault"] else []), *keys["warnings"]):
        yield _line("", style.paint(printable(warning), _YELLOW))
    if usage := environment["usage"]:
        shown = usage[:_MOST_SHOWN]
        yield from _table(
            ("used today", "requests", "pages"),
            [(each["caller"], str(each["requests"]), f"{each['pages']:g}") for each in shown],
            len(shown),
            style,
        )
        if len(usage) > len(shown):
            yield style.paint("  all callers: nanonets-proxy usage --by caller", _DIM)
    yield from _problems(environment["problems"], style)


def _limits_and_queue(gate: dict[str, Any], style: Style) -> Iterable[str]:
    yield from _table(
        ("limits", "state", "learned", "opens in", "waiting", "in flight"),
        [
            (
                scope["name"],
                "quota used up" if scope["quota_used_up"] else scope["state"],
                _limit(scope),
                duration(scope["opens_in_s"]) if scope["opens_in_s"] else "open",
                str(scope["waiting"]),
                str(scope["in_flight"]),
            )
            for scope in gate["scopes"]
        ],
        gate["scopes_total"] if gate["scopes"] else 0,
        style,
    )
    yield from _table(
        ("queue", "scope", "waiting", "ends in"),
        [
            (lane["caller"], lane["scope"], str(lane["waiting"]), _ends_in(lane["ends_in_s"]))
            for lane in gate["lanes"]
        ],
        gate["lanes_total"],
        style,
    )


def _waiting(gate: dict[str, Any]) -> str:
    if not gate["waiting"]:
        return "0"
    role = (gate.get("fleet") or {}).get("role")
    next_permit = "from the leader of the fleet" if role in ("follows", "joins") else "at the next response"
    if gate["next_permit_in_s"] is not None:
        next_permit = f"in {duration(gate['next_permit_in_s'])}"
    callers = "1 caller" if gate["waiting_callers"] == 1 else f"{gate['waiting_callers']} callers"
    return f"{gate['waiting']} from {callers}, next permit {next_permit}"


def _fleet(fleet: dict[str, Any]) -> str:
    role, replicas = fleet["role"], fleet["replicas"]
    of = "1 replica" if replicas == 1 else f"{replicas} replicas"
    return f"alone, with its share of {of}" if role == "alone" else f"{printable(role)}, {of}"


def _last_hour(requests: dict[str, Any]) -> str:
    totals = ", ".join(f"{sum(requests[name])} {label}" for name, label in _OUTCOMES)
    return f"{totals}; now {requests['per_second']:g} requests per second"


def _jobs(jobs: dict[str, Any]) -> str:
    oldest = f", the oldest for {duration(jobs['oldest_queued_s'])}" if jobs["queued"]["used"] else ""
    ended = ", ".join(f"{jobs[state]} {state}" for state in ("sending", "done", "failed", "unknown"))
    return f"{jobs['queued']['used']} queued{oldest}; {ended}; {_share(jobs['bytes'])} on disk"


def _limit(scope: dict[str, Any]) -> str:
    parts = []
    if scope["count"] is not None:
        parts.append(f"{scope['count']:g} in {duration(scope['period_s'])}")
    if scope["concurrency"] is not None:
        parts.append(f"{scope['concurrency']:g} in flight")
    return ", ".join(parts) or "unknown"


def _ends_in(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)


def _share(usage: dict[str, Any]) -> str:
    return f"{_size(usage['used'])} of {_size(usage['limit'])}"


def _size(count: float) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    at = 0
    while count >= 1024 and at < len(units) - 1:
        count, at = count / 1024, at + 1
    return f"{count:.3g} {units[at]}" if count < 1000 else f"{count:.0f} {units[at]}"


def _problems(problems: Sequence[dict[str, Any]], style: Style) -> Iterable[str]:
    if problems:
        yield ""
        yield style.paint("problems", _BOLD)
    for problem in problems[:_MOST_SHOWN]:
        times = "1 time" if problem["times"] == 1 else f"{problem['times']} times"
        facts = f"{times}, last {duration(problem['age_s'])} ago"
        if problem["caller"]:
            facts += f", caller {problem['caller']}, request {problem['request_id']}"
        # After an upgrade, the proxy that still runs may be one without these texts.
        sentence, reason, what = (printable(problem.get(name, "")) for name in ("sentence", "reason", "what"))
        advice, kind = printable(problem["advice"]), printable(problem["kind"]) + (f" ({what})" if what else "")
        first, *more = [text for text in (sentence, reason, advice) if text]
        yield f"  {style.paint(kind, _YELLOW)}: {first}"
        for text in more:
            yield f"    {text}"
        yield style.paint(f"    {printable(facts)}", _DIM)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], total: int, style: Style) -> Iterable[str]:
    """Yields the rows in columns as wide as their texts; the first column gives way if the width is too small."""
    if not rows:
        return
    cells = [list(map(printable, row)) for row in rows[:_MOST_SHOWN]]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    widths[0] = max(len(head[0]), min(widths[0], style.width - 4 - sum(widths[1:]) - 2 * len(widths)))
    yield ""
    yield style.paint(_columns(head, widths), _BOLD)
    for row in cells:
        yield _columns(row, widths)
    if total > len(cells):
        yield style.paint(f"  and {total - len(cells)} more", _DIM)


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if len(cell) <= width else f"{cell[: width - 1]}…"
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _line(label: str, text: str) -> str:
    return f"{label:{_LABEL_WIDTH}}{text}"
