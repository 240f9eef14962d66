"""Which processes end their container."""

from pathlib import Path

import pytest

from nanonets_proxy.process.successor.container import ends_container


def made_proc(folder: Path, processes: dict[int, tuple[str, int]]) -> Path:
    """Makes a directory as /proc, with the name and the parent of each process."""
    for pid, (name, parent) in processes.items():
        process = folder / str(pid)
        process.mkdir()
        (process / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1\n")
        (process / "comm").write_text(f"{name}\n")
    return folder


PROXY = "odd) name ("


@pytest.mark.parametrize(
    "processes",
    [
        {1: (PROXY, 0)},
        {7: ("tini", 1), 1: ("docker-init", 0), 9: (PROXY, 7)},
        {7: ("sh", 1), 1: ("tini", 0), 9: (PROXY, 7)},
        {1: ("bash", 0), 9: (PROXY, 1)},
        {1: ("pause", 0), 9: (PROXY, 0)},
    ],
)
def test_the_container_ends_with_a_process_for_which_all_others_wait(
    tmp_path: Path, processes: dict[int, tuple[str, int]]
) -> None:
    assert ends_container(max(processes), made_proc(tmp_path, processes))


@pytest.mark.parametrize(
    "processes",
    [
        {1: ("systemd", 0), 9: (PROXY, 1)},
        {1: ("systemd", 0), 7: ("sh", 1), 9: (PROXY, 7)},
        {1: ("tini", 0), 7: ("supervisord", 1), 9: (PROXY, 7)},
        {1: ("init", 0), 7: ("sshd", 1), 8: ("bash", 7), 9: (PROXY, 8)},
    ],
)
def test_a_process_of_a_service_manager_or_of_a_terminal_does_not_end_the_container(
    tmp_path: Path, processes: dict[int, tuple[str, int]]
) -> None:
    assert not ends_container(9, made_proc(tmp_path, processes))


def test_without_proc_only_process_1_does(tmp_path: Path) -> None:
    assert ends_container(1, tmp_path)
    assert not ends_container(9, tmp_path)
