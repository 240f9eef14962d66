"""Which keys the log masks after many changes."""

from nanonets_proxy.core.keys.api_key import ApiKey
from nanonets_proxy.core.keys.key_records import FoundKey
from nanonets_proxy.keys.source import EnvironmentKey
from nanonets_proxy.telemetry.redaction import MOST_KEYS, Redactor
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding


def _key(text: str) -> ApiKey:
    return ApiKey.parse(text, "test")


def _is_masked(redactor: Redactor, text: str) -> bool:
    return text.encode() not in redactor(b'"%b"' % text.encode())


def test_the_last_keys_of_each_source_are_masked_and_lasting_secrets_for_ever() -> None:
    redactor = Redactor()
    redactor.add([b"password"])
    constant, rotated = redactor.for_source(), redactor.for_source()
    constant(_key("constant").secrets())
    for number in range(1000):
        rotated(_key(f"rotated-{number}.").secrets())
        rotated(_key("in-use").secrets())
    assert len(redactor._spellings) <= 20 * MOST_KEYS
    for text in ("password", "constant", "in-use", "rotated-999.", f"rotated-{1001 - MOST_KEYS}."):
        assert _is_masked(redactor, text), text
    assert not _is_masked(redactor, f"rotated-{1000 - MOST_KEYS}.")


async def test_a_key_in_use_stays_masked_if_its_source_prints_one_rejected_key_after_another() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, EnvironmentKey(_key("key-in-use"))) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x")).status == 200
        manager, redactor = proxy.proxy.key_manager, proxy.proxy._redactor
        for number in range(2 * MOST_KEYS):
            found = FoundKey(_key(f"rejected-{number}."), 0.0)
            manager._take_reading((found,), on_demand=False)
        assert _is_masked(redactor, "key-in-use")
        assert _is_masked(redactor, f"rejected-{2 * MOST_KEYS - 1}.")
        assert not _is_masked(redactor, "rejected-0.")
