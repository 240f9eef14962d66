"""Writes docs/speed.md and its chart from the results: `python -m speed.page`."""

from pathlib import Path
from typing import Final

from speed import tables
from speed.chart import bars
from speed.measures import CONNECTIONS, IDLE_OF_OTHERS, LATENCY_S, WINDOW_S
from speed.peers import OURS, PEERS, RECIPE
from speed.results import Results

RESULTS: Final = Path(__file__).with_name("results.json")
_TEMPLATE: Final = Path(__file__).with_name("page.md")
_DOCS: Final = Path(__file__).parents[2] / "docs"

_HOW: Final = {
    OURS: "`nanonets-proxy serve`",
    "nginx": "one worker; no log, uploads unbuffered, no temporary files, buffers of 64 KiB, 256 connections kept",
    "HAProxy": "one thread; no log",
    "Envoy": "`--concurrency 1`; no access log; counts requests, makes request ids",
    "Caddy": "`GOMAXPROCS=1`; no access log, 256 connections kept",
    RECIPE: "`web.run_app`, a `ClientSession`, asyncio's loop; no access log ([file](../bench/speed/recipe.py))",
    "mitmproxy": "`mitmdump`, reverse mode; bodies over 1 MiB streamed, nothing printed",
}
_CHARTED: Final = ("small_get", "small_get_tls")


def chart(results: Results) -> str:
    found = {}
    for peer in PEERS:
        figures = [results.samples.median(case, peer.name, "cpu_us") for case in _CHARTED]
        found[peer.name] = [figure for figure in figures if figure is not None]
    title = f"CPU time of a small GET, microseconds ({results.facts['date']})"
    return bars(title, ("plain upstream", "TLS upstream"), found, OURS)


def text(results: Results) -> str:
    facts, samples = results.facts, results.samples
    peers = [["peer", "version", "how it runs"]]
    peers += [[name, results.versions.get(name, ""), how] for name, how in _HOW.items()]
    return _TEMPLATE.read_text().format(
        date=facts["date"],
        commit=facts["commit"],
        machine=facts["cpu"],
        cores=facts["cores"],
        system=facts["system"],
        python=facts["python"],
        others=facts["cores busy with other work"],
        rounds=results.rounds,
        connections=CONNECTIONS,
        idle_of_others=IDLE_OF_OTHERS,
        window_s=WINDOW_S,
        latency_s=LATENCY_S,
        peers=tables.table(peers),
        targets=tables.table(tables.targets(samples)),
        cpu=tables.table(tables.cpu(samples)),
        latency=tables.table(tables.latency(samples)),
        bulk=tables.table(tables.bulk(samples)),
        size=tables.table(tables.size(samples)),
        growth=tables.table(tables.growth(samples)),
    )


def write() -> None:
    """From the results that were kept last."""
    results = Results.read(RESULTS)
    (_DOCS / "speed.svg").write_text(chart(results))
    (_DOCS / "speed.md").write_text(text(results))


if __name__ == "__main__":
    write()
