"""A real Redis server for the tests marked `system` (`make test-fleet`). A missing program is a failure."""

from collections.abc import Iterator

import pytest

from fleet.redis_server import RedisServer, redis_server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of this test's own."""
    with redis_server() as server:
        yield server
