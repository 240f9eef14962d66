"""The URL of a Redis server."""

import pytest

from nanonets_proxy.core.net.redis_address import RedisAddress, RedisKind


def address(*hosts: tuple[str, int], **parts: object) -> RedisAddress:
    return RedisAddress(hosts, **parts)  # the parts have the types of the fields


@pytest.mark.parametrize(
    ("text", "parsed", "shown"),
    [
        ("redis://redis.example", address(("redis.example", 6379)), "redis://redis.example:6379/0"),
        ("redis://h:7000/3", address(("h", 7000), database=3), "redis://h:7000/3"),
        (
            "rediss://us%40er:p%3Aw@h",
            address(("h", 6379), tls=True, user="us@er", password="p:w"),
            "rediss://***@h:6379/0",
        ),
        ("redis://:pw@[::1]:1/", address(("::1", 1), password="pw"), "redis://***@[::1]:1/0"),
        (
            "redis+sentinel://:pw@a,b:1,[::1]:2/main/1",
            address(
                *(("a", 26379), ("b", 1), ("::1", 2)),
                kind=RedisKind.SENTINEL,
                password="pw",
                service="main",
                database=1,
            ),
            "redis+sentinel://***@a:26379,b:1,[::1]:2/main/1",
        ),
        (
            "rediss+cluster://a:1,b/0",
            address(("a", 1), ("b", 6379), kind=RedisKind.CLUSTER, tls=True),
            "rediss+cluster://a:1,b:6379",
        ),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=%2Fc.pem&ssl_keyfile=/k.pem",
            address(("h", 6379), tls=True, ca_file="/ca.pem", cert_file="/c.pem", key_file="/k.pem"),
            "rediss://h:6379/0",
        ),
    ],
)
def test_a_url_names_the_server(text: str, parsed: RedisAddress, shown: str) -> None:
    assert RedisAddress.parse(text) == parsed
    assert str(parsed) == shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://h", "must be of the form"),
        ("redis+s3cret://h", "must be of the form"),
        ("redis+://h", "must be of the form"),
        ("redis://", "must be of the form"),
        ("redis://h:0", "must be of the form"),
        ("redis+cluster://h,,s3cret", "must be of the form"),
        ("redis://h/0?s3cret", "may only have the parameters"),
        ("redis://h#s3cret", "must be of the form"),
        ("redis://user:s3/cret@h", "must be escaped: write / as %2F"),
        ("redis://user:s3?cret@h/0", "must be escaped"),
        ("redis://user:s3#cret@h/0", "must be escaped"),
        ("redis://h/name", "must end with the number of a database"),
        ("redis://h/000001", "must end with the number of a database"),
        ("redis://h:s3cret/0", "must be of the form"),
        ("redis://[s3cret/0", "must be of the form"),
        ("redis+cluster://[s3cret/0", "must be of the form"),
        ("redis+cluster://h:1,[s3cret:3", "must be of the form"),
        ("redis://h1,h2/0", "names several hosts"),
        ("redis://h1,h2/main", "names several hosts"),
        ("redis+sentinel://h", "must name the service"),
        ("redis+sentinel://h/main/s3cret", "must end with the number of a database"),
        ("redis+cluster://h/1", "a cluster has only the database 0"),
        ("rediss://h?ssl_cert_reqs=none", "may only have the parameters ssl_ca_certs, ssl_certfile, ssl_keyfile"),
        ("redis://h?ssl_ca_certs=/s3cret", "ssl_ca_certs needs TLS"),
        ("rediss://h?ssl_keyfile=/s3cret", "ssl_keyfile needs ssl_certfile"),
        ("rediss://h?ssl_ca_certs=", "empty file name"),
    ],
)
def test_another_url_is_rejected_and_not_shown(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        RedisAddress.parse(text)
    assert "s3cret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    parsed = RedisAddress.parse("redis://user:s3cret@h")
    assert "s3cret" not in repr(parsed) + str(parsed)
    assert parsed.secrets() == (b"s3cret",)
    assert RedisAddress.parse("redis://h").secrets() == ()
