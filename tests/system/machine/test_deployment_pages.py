"""Runs the commands of docs/deployment as they are written, each page on a machine of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands.page_commands import ROOT
from system.machine.machine import Machine, machine

pytestmark = pytest.mark.system

PAGES = ROOT / "docs" / "deployment"
API_KEY = "sys-72d0c4b19e8f5a36"
NEXT_API_KEY = "sys-c5e8813fd02a9b47"


@pytest.fixture(name="own_machine")
def _own_machine(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path) as started:
        yield started


def test_a_program_on_a_laptop_and_then_a_shared_instance(own_machine: Machine) -> None:
    with own_machine.upstream(API_KEY):
        reader = own_machine.reader()
        reader.follow(PAGES / "laptop.md", API_KEY)
        reader.follow(PAGES / "shared.md", API_KEY, API_KEY)


def test_one_container(own_machine: Machine) -> None:
    with own_machine.upstream(API_KEY, NEXT_API_KEY):
        own_machine.reader().follow(PAGES / "docker.md", API_KEY, NEXT_API_KEY)


def test_a_sidecar_with_compose(own_machine: Machine) -> None:
    with own_machine.upstream(API_KEY, NEXT_API_KEY):
        own_machine.reader().follow(PAGES / "compose.md", API_KEY, NEXT_API_KEY)
