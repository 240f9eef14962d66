"""Runs the commands of docs/deployment as they are written, each page on a machine of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands.page_commands import ROOT, Reader
from system.machine.booted import booted, make_root
from system.machine.machine import Machine, machine
from system.podman import succeed

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


def test_an_ordinary_user_on_a_fresh_debian(own_machine: Machine, tmp_path: Path) -> None:
    """Containers need root here, so the section with Compose is left out."""
    root, home = tmp_path / "root", Path("/home/stranger")
    root.mkdir()
    succeed(ROOT / ".ci" / "fresh-root", "bookworm", root, timeout_s=900)
    shutil.copy(own_machine.home / "ca.pem", root / "etc" / "upstream-ca.pem")
    shutil.copy(own_machine.home / "hosts", root / "etc" / "hosts")
    own_machine.succeed("mount", "-t", "proc", "proc", str(root / "proc"))
    own_machine.succeed("mount", "--rbind", "/dev", str(root / "dev"))
    env = {
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:/usr/local/bin:/usr/bin:/bin",
        "NANONETS_PROXY_UPSTREAM_PRIVATE": "true",
        "SSL_CERT_FILE": "/etc/upstream-ca.pem",
    }
    enter = ("/usr/sbin/chroot", "--userspec=stranger:stranger", str(root))
    folder = home / "nanonets-proxy"
    reader = Reader(folder, env, (*own_machine.within, *enter), seen_from_here=root / folder.relative_to("/"))
    reader.clone()
    succeed("chroot", root, "chown", "--recursive", "stranger:", folder)
    with own_machine.upstream(API_KEY):
        reader.follow(PAGES / "laptop.md", API_KEY)
        reader.follow(PAGES / "shared.md", API_KEY, section="On a machine")


def test_one_container(own_machine: Machine) -> None:
    with own_machine.upstream(API_KEY, NEXT_API_KEY):
        own_machine.reader().follow(PAGES / "docker.md", API_KEY, NEXT_API_KEY)


def test_a_service_of_systemd(own_machine: Machine, tmp_path: Path) -> None:
    root = make_root(tmp_path, with_service=False)
    shutil.copy(own_machine.home / "ca.pem", root / "etc" / "upstream-ca.pem")
    shutil.copy(own_machine.home / "hosts", root / "etc" / "hosts")
    drop_in = root / "etc" / "systemd" / "system" / "nanonets-proxy.service.d"
    drop_in.mkdir()
    (drop_in / "test.conf").write_text(
        "[Service]\nEnvironment=NANONETS_PROXY_UPSTREAM_PRIVATE=true SSL_CERT_FILE=/etc/upstream-ca.pem\n"
    )
    folder = Path("/root/nanonets-proxy")
    with own_machine.upstream(API_KEY, NEXT_API_KEY), booted(root, own_machine.within) as inside:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        reader = Reader(folder, env, inside, seen_from_here=root / folder.relative_to("/"))
        reader.clone()
        reader.follow(PAGES / "systemd.md", API_KEY, NEXT_API_KEY)


def test_a_sidecar_with_compose(own_machine: Machine) -> None:
    with own_machine.upstream(API_KEY, NEXT_API_KEY):
        own_machine.reader().follow(PAGES / "compose.md", API_KEY, NEXT_API_KEY)
