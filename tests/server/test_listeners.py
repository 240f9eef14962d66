"""Listeners: TCP, IPv6 and unix sockets, and addresses that cannot be listened on."""

import os
import re
import socket
import stat
import struct
from pathlib import Path

import pytest

from nanonets_proxy.core.net.addresses import Origin, TcpListener, UnixListener
from nanonets_proxy.server.inherited import InheritedSockets
from nanonets_proxy.server.listeners import BACKLOG, ListenFailed, close_sockets, open_sockets
from support.commands.ports import has_ipv6
from support.eventually import until
from support.proxy_harness import program, running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import OK, ScriptedUpstream, responding

NOWHERE = Origin("http", "127.0.0.1", 9)
MOST_THE_KERNEL_GRANTS = int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_a_unix_socket_has_its_mode_and_is_removed_at_the_end(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "proxy.sock"
    async with ScriptedUpstream(responding(OK)) as upstream:
        async with (
            running_proxy(upstream.origin, listen=f"unix:{path}?mode={mode:04o}") as proxy,
            await proxy.caller() as caller,
        ):
            assert proxy.address == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert (await caller.get(b"/x")).body == b"ok"
        assert not path.exists()


def test_an_owner_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    for kind, named in (("user", {"owner": "no-such-name"}), ("group", {"group": "no-such-name"})):
        with pytest.raises(ListenFailed, match=rf"\(there is no {kind} no-such-name\)$"):
            open_sockets("listen", [UnixListener(f"{tmp_path}/s", **named)])


def test_changes_of_mode_and_owner_follow_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with rights to the directory may put a link in the place of the file that was just made."""
    target, path = tmp_path / "target", tmp_path / "s"
    target.touch(0o600)
    bind = socket.socket.bind

    def bind_and_replace(sock: socket.socket, address: str) -> None:
        bind(sock, address)
        path.unlink()
        path.symlink_to(target)

    monkeypatch.setattr(socket.socket, "bind", bind_and_replace)
    owner = str(os.getuid())
    for sock in open_sockets("listen", [UnixListener(str(path), 0o666, owner)]):
        sock.close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_a_socket_that_another_process_has_put_in_the_same_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    async with ScriptedUpstream() as upstream:
        async with running_proxy(upstream.origin, listen=f"unix:{path}"):
            path.unlink()
            (other,) = open_sockets("listen", [UnixListener(str(path))])
        assert path.exists()
        close_sockets([other])
        assert not path.exists()


async def test_a_unix_caller_is_named_by_its_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen=f"unix:{tmp_path}/s") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.get(b"/x")
    assert f"unix:uid={os.getuid()}" in capsys.readouterr().out


async def test_several_addresses_serve_at_once(tmp_path: Path) -> None:
    addresses = ["127.0.0.1:0", f"unix:{tmp_path}/s", *(["[::1]:0"] if has_ipv6() else [])]
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen=",".join(addresses)) as proxy,
    ):
        assert len(proxy.proxy.listening.addresses) == len(addresses)
        for address in proxy.proxy.listening.addresses:
            async with await RawCaller.connect(address) as caller:
                assert (await caller.get(b"/x")).body == b"ok"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_address_is_served_and_described_with_brackets() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen="[::1]:0") as proxy,
        await proxy.caller() as caller,
    ):
        assert re.fullmatch(r"\[::1\]:[0-9]+", proxy.address)
        assert (await caller.get(b"/x", b"Origin: http://localhost")).body == b"ok"


async def test_a_socket_file_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, listen=f"unix:{path}") as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).body == b"ok"


@pytest.mark.parametrize("backlog", [5, 0], ids=["free", "with_a_full_backlog"])
def test_a_socket_that_another_process_serves_is_left_alone(tmp_path: Path, backlog: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(backlog)
        waiting.connect(str(path))
        with pytest.raises(ListenFailed, match=re.escape(f"listen: unix:{path}?mode=0660 is already in use")):
            open_sockets("listen", [UnixListener(str(path))])
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("important")
    with pytest.raises(ListenFailed, match=r"notes\.txt\?mode=0660 is already in use"):
        open_sockets("listen", [UnixListener(str(path))])
    assert path.read_text() == "important"


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
async def test_a_busy_port_is_named_with_its_setting_and_nothing_stays_open(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        free = {"listen": f"127.0.0.1:0,unix:{tmp_path}/s", "admin_listen": f"unix:{tmp_path}/admin"}
        wanted = free | {setting: f"{free[setting]},{busy}"}
        open_before = _open_files()
        with pytest.raises(ListenFailed, match=f"^{setting}: {busy} is already in use$"):
            program(NOWHERE, **wanted).open()
        assert _open_files() == open_before
        assert _names_in(tmp_path) == []


def _open_files() -> int:
    return len(_names_in(Path("/proc/self/fd")))


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_an_address_of_another_machine_is_rejected() -> None:
    with pytest.raises(ListenFailed, match=r"^listen: 192\.0\.2\.1:0 is not an address of this machine$"):
        open_sockets("listen", [TcpListener("192.0.2.1", 0)])


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_busy_address_of_localhost_is_named_and_the_other_is_closed() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        open_before = _open_files()
        sentence = f"^listen: \\[::1\\]:{port}, an address of localhost:{port}, is already in use$"
        with pytest.raises(ListenFailed, match=sentence):
            open_sockets("listen", [TcpListener("localhost", port)])
        assert _open_files() == open_before


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_port_0_takes_a_port_that_is_free_for_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        taken = other.getsockname()[1]
        tries = []

        class Socket(socket.socket):
            def bind(self, address: "tuple[str, int]") -> None:  # type: ignore[override]  # TCP only
                if not tries:  # the kernel's first choice is the port that is taken for IPv6
                    tries.append(address)
                    address = (address[0], taken)
                super().bind(address)

        monkeypatch.setattr(socket, "socket", Socket)
        sockets = open_sockets("listen", [TcpListener("localhost", 0)])
        try:
            first, second = (sock.getsockname()[1] for sock in sockets)
            assert first == second != taken
        finally:
            for sock in sockets:
                sock.close()


async def test_an_idle_connection_closes_after_keep_alive() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, keep_alive="100ms") as proxy,
        await proxy.caller() as silent,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        assert [await silent.read_to_end(), await caller.read_to_end()] == [b"", b""]
        await until(lambda: not proxy.connections)


async def test_the_listen_backlog_is_as_large_as_the_kernel_allows() -> None:
    """The event loop calls `listen` again on the sockets it is given, with its own default of 100."""
    async with running_proxy(NOWHERE) as proxy:
        sock = proxy.proxy.listening.sockets[0]
        # tcp(7), struct tcp_info: 8 bytes, then 32-bit values; the 6th of a listening socket is its backlog.
        backlog = struct.unpack_from("=8x6I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[5]
        assert backlog == min(BACKLOG, MOST_THE_KERNEL_GRANTS)


@pytest.mark.skipif(not has_ipv6(), reason="the machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "only_ipv6", "other_port", "expected"),
    [("::", False, 0, True), ("::", True, 0, False), ("::1", False, 0, False), ("::", False, 1, False)],
)
def test_only_a_socket_on_all_addresses_of_its_port_has_both_families(
    host: str, only_ipv6: bool, other_port: int, expected: bool
) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6, dualstack_ipv6=not only_ipv6) as sock:
        inherited = InheritedSockets([(sock, None)])
        assert inherited.has_both_families(sock.getsockname()[1] + other_port) is expected
