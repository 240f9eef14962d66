"""The speed benchmark's calculations and reports. These tests measure no time."""

import os
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from speed import growth
from speed.__main__ import MIN_ROUNDS
from speed.cases import CASES, Case
from speed.load.wire import BadResponse, discard, response_bytes
from speed.peers import DIRECT, OURS, PEERS
from speed.processes import kib_of, parent_of, tree
from speed.report import page, tables
from speed.report.chart import bars
from speed.report.targets import TARGETS
from speed.results import Results, Samples, quantile
from speed.run import Plan, run
from speed.stages import PLAIN
from speed.upstream import Origin, Upstreams


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


def test_a_failed_run_has_yielded_the_samples_of_earlier_rounds(tmp_path: Path) -> None:
    figures = iter([7.0])
    case = Case("small_get", "small GET", PLAIN, lambda _: {"per_s": next(figures)}, frozenset({DIRECT}))
    rounds = run(Plan([case], [DIRECT], 2, tmp_path), tmp_path, Upstreams(Origin(1), Origin(2), Origin(3)))
    assert next(rounds).all("small_get", DIRECT, "per_s") == [7.0]
    with pytest.raises(RuntimeError):
        next(rounds)


def test_the_published_results_have_every_round_case_peer_and_target() -> None:
    results = Results.read(page.RESULTS)
    samples = results.samples
    assert results.rounds >= MIN_ROUNDS
    assert {case.name: case.of for case in CASES} == {case: frozenset(of) for case, of in samples.figures.items()}
    assert all(target.figure(samples) is not None for target in TARGETS)


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
