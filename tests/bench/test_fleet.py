"""What the fleet benchmark counts. These tests measure no time."""

from fleet.upgrade import unready
from support.commands.ports import free_port


def test_a_replica_that_does_not_respond_counts_as_not_ready() -> None:
    assert unready(f"http://127.0.0.1:{free_port()}") == "no_response"
