"""The log names each setting that loosens the boundary."""

from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.scripted_upstream import ScriptedUpstream


async def test_the_default_loosens_nothing() -> None:
    with captured_log() as log:
        async with ScriptedUpstream() as upstream, running_proxy(upstream.origin):
            pass
        assert log.events("boundary_loosened") == []


async def test_each_loosening_is_logged_with_its_value() -> None:
    loose = {
        "allow_from": "10.0.0.0/8",
        "admin_allow_from": "fd00::/8",
        "allowed_hosts": "proxy.example.com",
        "upstream_private": True,
        "read_only": True,
        "policy_dry_run": True,
        "admin_quit": True,
    }
    with captured_log() as log:
        async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, listen="0.0.0.0:0", **loose):
            pass
        named = {event["setting"]: event["value"] for event in log.events("boundary_loosened")}
    assert named == {
        "listen": "0.0.0.0:0",
        "allow_from": "10.0.0.0/8",
        "admin_allow_from": "fd00::/8",
        "allowed_hosts": "proxy.example.com",
        "upstream_private": "true",
        "policy_dry_run": "true",
        "admin_quit": "true",
    }
