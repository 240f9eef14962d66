"""What `nanonets-proxy check` found out, and how it is shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the check: what was looked at, whether it is right, and the fact behind it."""

    name: str
    ok: bool
    detail: str


def as_text(results: Sequence[CheckResult]) -> str:
    """A line for each result, in columns."""
    width = max(len(result.name) for result in results)
    return "\n".join(
        f"{'ok' if result.ok else 'fail':4}  {result.name:{width}}  {result.detail}" for result in results
    )


def as_json(results: Sequence[CheckResult]) -> str:
    """`{"ok": bool, "checks": [{"name", "ok", "detail"}]}`."""
    ok = all(result.ok for result in results)
    return json.dumps({"ok": ok, "checks": [asdict(result) for result in results]}, indent=2)
