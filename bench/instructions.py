"""Counts the instructions of a request in the real process, by callgrind. `make bench-instructions`.

CPU times swing with the load of the machine, instruction counts by about one percent. They leave out the kernel,
and a copied octet may count as an instruction, so they compare two versions of the program and are no CPU times.

Only the thread of the event loop counts: in a process that callgrind slows down, the log's thread wakes for nearly
each request. The instructions of an idle second are subtracted for the time that the requests took.

NANONETS_PROXY_COMMAND names the command of another version: `TREE/.venv/bin/python -m nanonets_proxy`.
"""

import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from speed.peers.launches import Setting, ours
from speed.processes import free_port
from speed.requests import LARGE, LARGE_BYTES, SMALL, SMALL_RESPONSE, Request, post, succeeds
from speed.upstream import Origin

KINDS: Final = {
    "small GET": SMALL,
    "POST of 1 KiB": post(1024),
    "POST of 64 KiB": post(64 * 1024),
    "response of 64 KiB": LARGE,
}
WARM_UP: Final = 150
COUNTED: Final = 200
IDLE_S: Final = 3.0
_READY_S: Final = 300.0
_END_S: Final = 60.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)")
_RESPONSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n"
)
_VALGRIND: Final = ("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes")
_EVENT_LOOP: Final = "01"
"""Callgrind's number of the first thread."""


class Wire:
    """One end of a connection: reads whole messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def message(self) -> bytes | None:
        """Reads a message and returns its head; None at the end of the connection."""
        while _END_OF_HEAD not in self._data:
            if not (data := self._sock.recv(1 << 18)):
                return None
            self._data += data
        head, _, body = self._data.partition(_END_OF_HEAD)
        length = int(found[1]) if (found := _LENGTH.search(head)) else 0
        while len(body) < length:
            body += self._sock.recv(1 << 18)
        self._data = body[length:]
        return head


def upstream() -> Origin:
    """Starts an upstream that sends each response in one piece, and returns its origin."""
    server = socket.create_server(("127.0.0.1", 0))
    large = b'"' + b"x" * (LARGE_BYTES - 2) + b'"'

    def serve(wire: Wire) -> None:
        while (head := wire.message()) is not None:
            body = large if LARGE.path.encode() in head else SMALL_RESPONSE.encode()
            wire.send(_RESPONSE_HEAD % len(body) + body)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(Wire(server.accept()[0]),), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return Origin(server.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Counter:
    """Callgrind's control of a process, which writes its files to `home`."""

    pid: int
    home: Path

    def start(self) -> None:
        self._control("--instr=on")

    def of(self, action: Callable[[], None]) -> tuple[int, float]:
        """Returns the instructions of the event loop's thread during `action`, and the seconds that it took."""
        self._control("--zero")
        began_s = time.monotonic()
        action()
        taken_s = time.monotonic() - began_s
        self._control("--dump")
        dumps = self.home.glob(f"callgrind.*-{_EVENT_LOOP}")
        newest = max(dumps, key=lambda path: int(path.name.split(".")[1].partition("-")[0]))
        totals = re.search(r"^totals: ([0-9]+)", newest.read_text(), re.MULTILINE)
        assert totals is not None, f"{newest} has no totals"
        return int(totals[1]), taken_s

    def _control(self, command: str) -> None:
        control = ["callgrind_control", command, str(self.pid)]
        subprocess.run(control, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _until_ready(setting: Setting, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    while not succeeds(f"http://127.0.0.1:{setting.port}", SMALL):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(f"the proxy does not serve: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _count_all(port: int, counter: Counter) -> None:
    caller = Wire(socket.create_connection(("127.0.0.1", port)))

    def send(request: Request, count: int) -> None:
        data = request.head(f"127.0.0.1:{port}") + b"x" * request.body_bytes
        for _ in range(count):
            caller.send(data)
            head = caller.message()
            assert (head or b"").startswith(b"HTTP/1.1 200 "), head

    for request in KINDS.values():
        send(request, WARM_UP)
    counter.start()
    send(SMALL, 20)
    idle, idle_s = counter.of(lambda: time.sleep(IDLE_S))
    for kind, request in KINDS.items():
        send(request, 20)
        total, taken_s = counter.of(partial(send, request, COUNTED))
        print(f"{kind}: {(total - idle * taken_s / idle_s) / COUNTED:,.0f} instructions", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        setting = Setting(home, home, upstream(), free_port(), free_port())
        launch = ours(setting)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANONETS_")}
        log = home / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_VALGRIND, f"--callgrind-out-file={home}/callgrind", *launch.command],
                env={**inherited, **launch.env, "PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _until_ready(setting, process, log)
            _count_all(setting.port, Counter(process.pid, home))
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
