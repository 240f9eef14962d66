"""The names of a fleet's keys."""

from dataclasses import replace

from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import PROTOCOL, FleetPolicy

POLICY = FleetPolicy(
    RedisAddress.parse("redis://:s3cret@redis.example/1"), "https://app.example\n\nteam", required=False
)


def test_the_keys_of_a_fleet_are_in_one_slot_of_a_cluster() -> None:
    prefix = POLICY.prefix()
    assert prefix.startswith(f"nanonets-proxy:{PROTOCOL}:1:{{")
    assert POLICY.common_prefix() == prefix.replace(f"{PROTOCOL}:1:", "")
    assert prefix.endswith("}")
    assert prefix == POLICY.prefix()


def test_another_account_or_password_or_database_is_another_fleet() -> None:
    other_account = replace(POLICY, account="https://app.example\n\nother")
    other_password = replace(POLICY, address=RedisAddress.parse("redis://:other@redis.example/1"))
    other_database = replace(POLICY, address=RedisAddress.parse("redis://:s3cret@redis.example/2"))
    others = [other_account, other_password, other_database]
    assert len({policy.prefix() for policy in [POLICY, *others]}) == 4


def test_neither_the_account_nor_the_password_can_be_read() -> None:
    assert "team" not in POLICY.prefix()
    assert "s3cret" not in POLICY.prefix() + repr(POLICY)
    assert b"s3cret" not in POLICY.key()
