"""The speed benchmark's calculations and reports. These tests measure no time."""

import os
import re
import signal
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from speed import growth
from speed.__main__ import MIN_ROUNDS, failed_cases, finished
from speed.cases import CASES, Case
from speed.load import persistent
from speed.load.wire import BadResponse, discard, response_bytes
from speed.measures import Measure
from speed.peers import DIRECT, OURS, PEERS, Running
from speed.processes import LoadFailed, kib_of, parent_of, running, tree, until
from speed.report import page, tables
from speed.report.chart import bars
from speed.report.targets import TARGETS
from speed.results import Results, Samples, quantile
from speed.run import Plan, measured, run
from speed.stages import PLAIN
from speed.upstream import Origin, Upstreams
from support.commands.ports import free_port


def test_a_quantile_is_one_of_the_measured_figures() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(1, 101)), 0.99) == 99
    assert quantile([7.0], 0.01) == 7.0


def test_the_growth_factor_is_the_largest_ratio_to_an_earlier_point() -> None:
    assert growth.growth_factor([10.0, 8.0, 9.0, 12.0]) == 1.5
    assert growth.growth_factor([10.0, 8.0, 2.0]) == 1.0


def test_the_growth_exponent_is_the_power_of_the_size() -> None:
    sizes = [1, 2, 4]
    assert growth.growth_exponent(sizes, [5.0, 10.0, 20.0]) == pytest.approx(1.0)
    assert growth.growth_exponent(sizes, [1.0, 4.0, 16.0]) == pytest.approx(2.0)
    assert growth.growth_exponent(sizes, [100.0, 101.0, 103.0]) < 0.1


def test_the_parent_is_found_after_a_process_name_with_spaces_and_parentheses() -> None:
    assert parent_of("42 (a) R (b c)) S 17 42 42 0 -1") == 17


def test_a_figure_of_proc_comes_from_the_line_with_its_name() -> None:
    assert kib_of("Rss", "00400000-7fff rollup\nRss:   123 kB\nPss:   45 kB\n") == 123


def test_a_process_tree_has_this_process_and_no_unrelated_one() -> None:
    pid = os.getpid()
    found = tree(pid)
    assert found[0] == pid
    assert 1 not in found


@pytest.mark.parametrize("cut", [0, 10, 37])
def test_a_response_has_a_length_once_its_head_is_complete(cut: int) -> None:
    response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    assert response_bytes(response[:cut]) is None
    assert response_bytes(response) == len(response)


@pytest.mark.parametrize("head", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_an_unexpected_response_stops_the_benchmark(head: bytes) -> None:
    with pytest.raises(BadResponse):
        response_bytes(head)


def test_a_body_that_ends_early_is_an_error() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"xx")
        left.close()
        with pytest.raises(ConnectionError):
            discard(right, 3, memoryview(bytearray(8)))


def test_columns_of_numbers_are_right_aligned() -> None:
    text = tables.table([["peer", "us"], ["a", "7"], ["longer", "123"]])
    assert text.splitlines() == [
        "| peer   |  us |",
        "|--------|----:|",
        "| a      |   7 |",
        "| longer | 123 |",
    ]


def test_a_target_compares_medians() -> None:
    samples = Samples()
    for ours_us, envoy_us in ((50.0, 60.0), (70.0, 60.0), (500.0, 60.0)):
        samples.add("small_get", OURS, {"cpu_us": ours_us})
        samples.add("small_get", "Envoy", {"cpu_us": envoy_us})
    assert tables.targets(samples)[1] == ["small GET: CPU per request", "<= 1 x Envoy", "1.17", "**missed**"]


def test_results_survive_writing_and_reading(tmp_path: Path) -> None:
    samples = Samples()
    samples.add("small_get", OURS, {"cpu_us": 12.3456})
    samples.add("small_get", OURS, {"cpu_us": 13.0})
    results = Results({"date": "2025-01-31"}, {"nginx": "1.22.1"}, 2, samples)
    file = tmp_path / "results.json"
    results.write(file)
    assert Results.read(file) == results
    assert "[12.35, 13.0]" in file.read_text()


def test_a_failed_measure_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: Iterator[float | LoadFailed] = iter([7.0, LoadFailed("10,000 busy\ncallers"), 9.0])

    def measure(_: Running) -> dict[str, float]:
        outcome = next(outcomes)
        if isinstance(outcome, LoadFailed):
            raise outcome
        return {"per_s": outcome}

    case = Case("small_get", "small GET", PLAIN, measure, frozenset({DIRECT}))
    *_, samples = run(Plan([case], [DIRECT], 3, tmp_path), tmp_path, Upstreams(Origin(1), Origin(2), Origin(3)))
    assert samples.by_round("small_get", DIRECT, "per_s") == {1: 7.0, 3: 9.0}
    assert samples.failures == {"small_get": {DIRECT: {"2": "10,000 busy callers"}}}
    assert "FAILED: no proxy, small GET, round 2: 10,000 busy callers\n" in capsys.readouterr().err


def _case(name: str, measure: Measure) -> Case:
    return Case(name, name, PLAIN, measure)


def _exits(peer: Running) -> dict[str, float]:
    assert peer.process
    os.kill(peer.process.pid, signal.SIGTERM)
    until(lambda: peer.process is not None and peer.process.poll() is not None, peer.process, within_s=60)
    raise ConnectionError("refused")


def test_a_new_process_serves_the_cases_after_a_failed_one(tmp_path: Path) -> None:
    pids = []

    @contextmanager
    def serve() -> Iterator[Running]:
        log = tmp_path / "output.log"
        with running(["sh", "-c", "echo out of files; exec sleep 600"], core=0, log=log) as process:
            until(lambda: bool(log.read_bytes()), process, within_s=60)
            pids.append(process.pid)
            yield Running("Envoy", "http://127.0.0.1:1", Origin(1), process)

    cases = [_case("a", lambda _: {"x": 1.0}), _case("b", _exits), _case("c", lambda _: {"x": 3.0})]
    found = [outcome for _, outcome in measured(cases, serve)]
    assert found == [{"x": 1.0}, "the process ended with the status -15: out of files", {"x": 3.0}]
    assert len(set(pids)) == 2


def test_a_peer_that_does_not_start_fails_in_all_of_its_cases(tmp_path: Path) -> None:
    @contextmanager
    def serve() -> Iterator[Running]:
        with running(["sh", "-c", "echo no such option >&2; exit 2"], core=0, log=tmp_path / "log") as process:
            until(lambda: False, process, within_s=60)
            yield Running("Envoy", "http://127.0.0.1:1", Origin(1), process)

    cases = [_case("a", lambda _: {}), _case("b", lambda _: {})]
    reason = "the process ended before it was ready: no such option"
    assert measured(cases, serve) == [(cases[0], reason), (cases[1], reason)]


def test_the_load_says_why_its_callers_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistent, "LOAD_CORE", 0)  # a machine of the tests may have no other core
    monkeypatch.setenv("PYTHONPATH", str(Path(persistent.__file__).parents[2]))
    callers = persistent.held(f"http://127.0.0.1:{free_port()}", 2, "busy")
    with pytest.raises(LoadFailed, match=r"^2 busy callers: ConnectionRefusedError: "), callers:
        pass


def test_a_run_that_breaks_off_keeps_the_finished_rounds(tmp_path: Path) -> None:
    def rounds() -> Iterator[Samples]:
        samples = Samples()
        samples.add("small_get", OURS, {"cpu_us": 12.0})
        yield samples
        raise KeyboardInterrupt

    file = tmp_path / "last.json"
    results = finished(rounds(), lambda number, samples: Results({}, {}, number, samples), file)
    assert results
    assert results.rounds == 1
    assert Results.read(file) == results


def test_only_failures_of_this_proxy_and_without_a_proxy_fail_the_run() -> None:
    samples = Samples()
    samples.fail("growth_busy", "Envoy", 1, "out of files")
    assert failed_cases(samples) == []
    samples.fail("small_get", OURS, 2, "ended")
    samples.fail("latency_200", DIRECT, 3, "refused")
    assert failed_cases(samples) == ["small_get", "latency_200"]


def test_the_published_results_have_every_round_case_peer_and_target() -> None:
    results = Results.read(page.RESULTS)
    samples = results.samples
    assert results.rounds >= MIN_ROUNDS
    for case in CASES:
        assert case.of == {*samples.figures.get(case.name, {}), *samples.failures.get(case.name, {})}
    cases = {target.case: target.figure(samples) for target in TARGETS}
    assert all(figure is not None or case in samples.failures for case, figure in cases.items())


def _page_without(case: str, peer: str) -> tuple[str, str]:
    results = Results.read(page.RESULTS)
    del results.samples.figures[case][peer]
    results.samples.fail(case, peer, 1, "a | b")
    results.samples.fail(case, peer, 2, "a | c")
    return page.text(results), page.chart(results)


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_the_page_names_each_failure_of_this_proxy(case: str) -> None:
    text, chart = _page_without(case, OURS)
    title = next(known.title for known in CASES if known.name == case)
    assert re.search(rf"\| {title} +\| nanonets-proxy +\| 1, 2 +\| a \\\| c +\|", text)
    targets = [target.title for target in TARGETS if target.case == case]
    assert all(re.search(rf"\| {re.escape(title)} +\|.*\| \*\*not measured\*\* \|", text) for title in targets)
    ET.fromstring(chart)


def test_a_peer_without_figures_has_dashes_in_the_page() -> None:
    text, _ = _page_without("growth_busy", "Envoy")
    assert re.search(r"\| busy connections +\| Envoy +\| \N{EN DASH} +\|", text)
    text, _ = _page_without("idle", "HAProxy")
    assert re.search(r"\| HAProxy +\| +[0-9.]+ \| +[0-9.]+ \| +\N{EN DASH} \|", text)


def test_without_any_figure_the_page_has_the_reasons() -> None:
    results = Results.read(page.RESULTS)
    for case in CASES:
        for peer in results.samples.figures.pop(case.name):
            results.samples.fail(case.name, peer, 1, "no nginx")
    assert "no nginx" in page.text(results)
    ET.fromstring(page.chart(results))


def test_what_a_proxy_adds_is_compared_within_rounds() -> None:
    samples = Samples()
    samples.fail("latency_1000", DIRECT, 1, "refused")
    for direct_ms, ours_ms in ((0.2, 9.0), (0.3, 0.4), (None, 0.6)):
        samples.add("latency_1000", OURS, {"p50_ms": ours_ms})
        if direct_ms:
            samples.add("latency_1000", DIRECT, {"p50_ms": direct_ms})
    target = next(target for target in TARGETS if target.title.endswith("median over no proxy"))
    assert target.figure(samples) == pytest.approx(0.25)


def test_the_page_matches_the_published_results() -> None:
    results = Results.read(page.RESULTS)
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "speed.md").read_text() == page.text(results)
    assert (docs / "images" / "speed.svg").read_text() == page.chart(results)


def test_the_page_describes_each_peer() -> None:
    text = page.text(Results.read(page.RESULTS))
    assert all(f"| {peer.name} " in text for peer in PEERS)
    assert DIRECT in text


def test_a_bar_much_longer_than_the_others_is_cut() -> None:
    svg = ET.fromstring(bars("title", ("a", "b"), {"x": [1, 2], "y": [2, 3], "z": [900, 3]}, "x"))
    widths = [float(bar.get("width", "")) for bar in svg.findall(".//{*}rect")]
    assert max(widths) < 720
    assert sum(path.get("class") == "cut" for path in svg.findall(".//{*}path")) == 1
