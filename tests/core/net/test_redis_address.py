"""The URL of a Redis server."""

import pytest

from nanonets_proxy.core.net.redis_address import RedisAddress


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("redis://redis.example", RedisAddress("redis.example", 6379), "redis://redis.example:6379/0"),
        ("redis://h:7000/3", RedisAddress("h", 7000, database=3), "redis://h:7000/3"),
        (
            "rediss://us%40er:p%3Aw@h",
            RedisAddress("h", 6379, tls=True, user="us@er", password="p:w"),
            "rediss://***@h:6379/0",
        ),
        ("redis://:pw@[::1]:1/", RedisAddress("::1", 1, password="pw"), "redis://***@[::1]:1/0"),
    ],
)
def test_a_url_names_the_server(text: str, address: RedisAddress, shown: str) -> None:
    assert RedisAddress.parse(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://h",
        "redis://",
        "redis://h/0?x=s3cret",
        "redis://h#s3cret",
        "redis://h/name",
        "redis://h/000001",
        "redis://h:s3cret/0",
        "redis://[s3cret/0",
    ],
)
def test_another_url_is_rejected_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        RedisAddress.parse(text)
    assert "s3cret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    address = RedisAddress.parse("redis://user:s3cret@h")
    assert "s3cret" not in repr(address) + str(address)
    assert address.secrets() == (b"s3cret",)
    assert RedisAddress.parse("redis://h").secrets() == ()
