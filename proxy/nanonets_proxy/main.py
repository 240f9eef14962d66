"""The entry: who makes a plan, and who serves it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # no command needs all of it
    from nanonets_proxy.plan import Plan


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (by default the process's arguments) names; gives the exit code."""
    from nanonets_proxy.cli import run

    return run(sys.argv[1:] if argv is None else argv, _serve)


def _serve(plan: "Plan") -> int:
    from nanonets_proxy.service import serve

    return serve(plan)
