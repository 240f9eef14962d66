"""The sandbox queues connections while it is busy, as a real upstream does."""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

from support.commands.process import environment, running

CONNECTIONS = 600
TIMEOUT_S = 10.0


def test_a_burst_of_connections_waits_for_a_busy_sandbox() -> None:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    arguments = ["sandbox", "--listen", "127.0.0.1:0", "--api-keys", "sandbox-test-key"]
    with running(arguments, environment(), is_forked=True) as sandbox, ExitStack() as opened:
        host, _, port = sandbox.wait_for("sandbox_started")["listen"][0].rpartition(":")
        sandbox.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(min(CONNECTIONS, most)):
                opened.enter_context(socket.create_connection((host, int(port)), TIMEOUT_S))
        finally:
            sandbox.process.send_signal(signal.SIGCONT)
