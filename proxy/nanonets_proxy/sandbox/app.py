"""The sandbox as an aiohttp application."""

import json
import math
import time

from aiohttp import web

from nanonets_proxy.sandbox import page, v2, v4, v4_review
from nanonets_proxy.sandbox.middleware import gate
from nanonets_proxy.sandbox.policy import MIB, SandboxPolicy, check_key
from nanonets_proxy.sandbox.state import SANDBOX, Sandbox
from nanonets_proxy.sandbox.uploads import expect

CALLS = (*v4.CALLS, *v4_review.CALLS, *v2.CALLS)
_MAX_SMALL_BODY_BYTES = MIB  # of JSON and forms, which are read whole


async def _page(request: web.Request) -> web.Response:
    policy = request.app[SANDBOX].policy
    text = page.render(policy, CALLS, host=request.host, scheme=request.scheme)
    headers = {"Content-Security-Policy": page.SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, content_type="text/html", headers=headers)


async def _stats(request: web.Request) -> web.Response:
    return web.json_response(request.app[SANDBOX].stats.to_json())


async def _reset(request: web.Request) -> web.Response:
    request.app[SANDBOX].reset()
    return web.Response(status=204)


async def _change_keys(request: web.Request) -> web.Response:
    """`{"keys": [str, ...], "grace_s": number}`: these are accepted from now on, others for `grace_s` more."""
    try:
        wish = json.loads(await request.read())
        keys, grace_s = wish["keys"], float(wish.get("grace_s", 0))
        if not isinstance(keys, list) or not (grace_s >= 0 and math.isfinite(grace_s)):
            raise ValueError  # noqa: TRY301 - one answer for all that is wrong
        for key in keys:
            check_key(key)
    except (ValueError, TypeError, KeyError, AttributeError):
        return web.Response(status=400, text='wanted: {"keys": ["..."], "grace_s": 0}\n')
    request.app[SANDBOX].keys.replace(keys, grace_s, time.monotonic())
    return web.Response(status=204)


def create_app(policy: SandboxPolicy) -> web.Application:
    """Return a simulated Nanonets API. It keeps everything in memory and shares nothing with others.

    Serve it with `access_log=None` where speed matters.
    """
    app = web.Application(middlewares=[gate], client_max_size=min(policy.max_body_bytes, _MAX_SMALL_BODY_BYTES))
    app[SANDBOX] = Sandbox(policy)
    app.router.add_get("/", _page)
    app.router.add_get("/sandbox/stats", _stats)
    app.router.add_post("/sandbox/reset", _reset)
    app.router.add_post("/sandbox/keys", _change_keys)
    for path in dict.fromkeys(call.path for call in CALLS):
        # The vendor's own samples write a path with a slash behind it or without.
        for resource in (app.router.add_resource(path), app.router.add_resource(f"{path}/")):
            for call in CALLS:
                if call.path == path:
                    resource.add_route(call.method, call.handler, expect_handler=expect)
                    if call.method == "GET":
                        resource.add_route("HEAD", call.handler, expect_handler=expect)
    return app
