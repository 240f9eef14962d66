"""What operators see shows no key, even if a caller takes the key for a name or a model."""

import pytest

from support.proxy_harness import KEY, running_proxy
from support.raw_caller import RawCaller, request
from support.raw_upstream import ok
from support.scripted_upstream import ScriptedUpstream, responding

REFUSAL = ok(
    b"<html>" + KEY.encode() + b"</html>", b"Retry-After: 60", b"Content-Type: text/html", status=b"429 No"
)


@pytest.mark.parametrize("path", [b"/metrics", b"/status", b"/readyz"])
async def test_a_key_in_the_callers_words_is_masked(path: bytes) -> None:
    async with (
        ScriptedUpstream(responding(REFUSAL)) as upstream,
        running_proxy(upstream.origin, caller_header="X-Caller") as proxy,
        await proxy.caller() as caller,
    ):
        fields = (b"X-Caller: " + KEY.encode(), b"X-Request-Id: " + KEY.encode(), b"Prefer: wait=0")
        await caller.send(
            request(b"POST", b"/api/v2/OCR/Model/" + KEY.encode() + b"/LabelUrls", *fields, body=b"x")
        )
        assert (await caller.response()).status == 429
        async with await RawCaller.connect(proxy.admin_address) as admin:
            response = await admin.get(path)
    assert response.status == 200
    assert KEY.encode() not in response.body
    assert path == b"/readyz" or b"[REDACTED]" in response.body
