"""Writes docs/speed.md and its chart from results.json: `python -m speed.report.page`."""

from pathlib import Path
from typing import Final

from speed.measures import CONNECTIONS, IDLE_CONNECTIONS_OF_OTHERS, LATENCY_S, WINDOW_S
from speed.peers import OURS, PEERS, RECIPE
from speed.report import tables
from speed.report.chart import bars
from speed.results import Results, Samples

RESULTS: Final = Path(__file__).parents[1] / "results.json"
_TEMPLATE: Final = Path(__file__).with_name("page.md")
_DOCS: Final = Path(__file__).parents[3] / "docs"

_CONFIGURATIONS: Final = {
    OURS: "`nanonets-proxy serve`",
    "nginx": "one worker; no access log, unbuffered uploads, no temporary files, 64 KiB buffers, "
    "256 idle connections",
    "HAProxy": "one thread; no access log",
    "Envoy": "`--concurrency 1`; no access log; counts requests, generates request ids",
    "Caddy": "`GOMAXPROCS=1`; no access log, 256 idle connections",
    RECIPE: "`web.run_app` and `ClientSession` on asyncio; no access log ([file](../bench/speed/peers/recipe.py))",
    "mitmproxy": "`mitmdump`, reverse mode; streams bodies over 1 MiB, prints nothing",
}
_FAILURES: Final = """
## Failures

A failed measure has no figure in its round. The medians are those of the other rounds.

{table}"""
_CHARTED: Final = ("small_get", "small_get_tls")


def chart(results: Results) -> str:
    found = {}
    for peer in PEERS:
        figures = [results.samples.median(case, peer.name, "cpu_us") for case in _CHARTED]
        if any(figure is not None for figure in figures):
            found[peer.name] = figures
    title = f"CPU time of a small GET, microseconds ({results.facts['date']})"
    return bars(title, ("plain upstream", "TLS upstream"), found, OURS)


def text(results: Results) -> str:
    facts, samples = results.facts, results.samples
    peers = [["peer", "version", "configuration"]]
    peers += [[name, results.versions.get(name, ""), text] for name, text in _CONFIGURATIONS.items()]
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
        idle_of_others=IDLE_CONNECTIONS_OF_OTHERS,
        window_s=WINDOW_S,
        latency_s=LATENCY_S,
        peers=tables.table(peers),
        targets=tables.table(tables.targets(samples)),
        failures=_failures(samples),
        cpu=tables.table(tables.cpu(samples)),
        latency=tables.table(tables.latency(samples)),
        bulk=tables.table(tables.bulk(samples)),
        size=tables.table(tables.size(samples)),
        growth=tables.table(tables.growth(samples)),
    )


def _failures(samples: Samples) -> str:
    rows = tables.failures(samples)
    return _FAILURES.format(table=tables.table(rows)) if rows else ""


def write() -> None:
    """Writes the page and the chart from the published results."""
    results = Results.read(RESULTS)
    (_DOCS / "images" / "speed.svg").write_text(chart(results))
    (_DOCS / "speed.md").write_text(text(results))


if __name__ == "__main__":
    write()
