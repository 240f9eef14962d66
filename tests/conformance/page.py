"""Generates docs/conformance.md from the cases. `python -m conformance.page` writes it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from conformance.cases import CASES, GROUPS
from conformance.steps import (
    Again,
    Case,
    HalfClose,
    Receive,
    ReceiveBody,
    Respond,
    See,
    SeeBroken,
    SeeBytes,
    SeeEnd,
    SeeInterim,
    SeeStart,
    Send,
    Step,
    UpstreamCloses,
    UpstreamEnded,
    UpstreamResets,
)

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
RESULTS: Final = Path(__file__).parent / "peers" / "results.json"
_INTRO: Final = Path(__file__).parent / "intro.md"
_SHOWN_CHARACTERS: Final = 72


def render() -> str:
    return "".join((_INTRO.read_text(), *_peers(), *_groups()))


def _groups() -> Iterator[str]:
    yield f"## The cases\n\n{len(CASES)} cases. `→` marks bytes to the upstream, and `←` bytes from the upstream. "
    yield "A bold number is the status that the\ncaller gets.\n"
    for title, cases in GROUPS.items():
        yield f"\n### {title}\n\n| fact | source | the caller sends | then |\n|---|---|---|---|\n"
        for case in cases:
            yield f"| {_text(case.fact)} | {case.source} | {_sent(case)} | {_then(case)} |\n"


def _sent(case: Case) -> str:
    first = [step.data for step in case.steps if isinstance(step, Send)]
    return _code(b"".join(first))


def _then(case: Case) -> str:
    return "; ".join(text for step in case.steps if (text := _described(step)))


def _described(step: Step) -> str:
    match step:
        case Receive(line):
            return f"→ {_code(line)}"
        case Respond(data):
            return f"← {_code(data)}"
        case See(ours=ours, code=code):
            return f"**{ours}**" + (f" `{code}`" if code else "")
        case SeeInterim(status):
            return f"**{status}**"
        case SeeBytes(data):
            return _code(data)
        case SeeStart(data):
            return f"the caller gets {_code(data)}"
        case SeeEnd():
            return "the caller's connection ends"
        case SeeBroken():
            return "the caller sees an incomplete response"
        case Again():
            return "the next request is served"
        case UpstreamCloses():
            return "← FIN"
        case UpstreamResets():
            return "← RST"
        case UpstreamEnded():
            return "→ FIN"
        case HalfClose():
            return "the caller closes its sending side"
        case Send() | ReceiveBody():
            return ""


def _code(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode().replace("`", "\\x60").replace("|", "\\|")
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS].rstrip("\\") + "…"
    return f"`{text}`" if text else ""


def _text(text: str) -> str:
    return text.encode("unicode_escape").decode().replace("|", "\\|").replace("<", "&lt;")


def _peers() -> Iterator[str]:
    if not RESULTS.exists():
        return
    results = json.loads(RESULTS.read_text())
    names = list(results["peers"])
    compared = [case.fact for case in CASES if case.comparable]
    yield "## Beside other proxies\n\n"
    yield "`make conformance-peers` runs the comparable cases against other proxies, each configured as a plain "
    yield "reverse proxy.\nThe standards allow most of the differences. The comparison checks our cases; it is no "
    yield "ranking.\n\n"
    yield "| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names) + "\n"
    yield "| version | " + " | ".join(results["peers"][name]["version"] for name in names) + " |\n"
    passed = [len(compared) - len(set(results["peers"][name]["failed"]) & set(compared)) for name in names]
    yield f"| passed, of {len(compared)} | " + " | ".join(map(str, passed)) + " |\n\n"
    yield (
        "The cases that at least one proxy does not pass:\n\n| fact | "
        + " | ".join(names)
        + " |\n|---|"
        + "---|" * len(names)
        + "\n"
    )
    for fact in compared:
        marks = ["no" if fact in results["peers"][name]["failed"] else "yes" for name in names]
        if "no" in marks:
            yield f"| {_text(fact)} | " + " | ".join(marks) + " |\n"
    yield "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
