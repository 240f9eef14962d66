"""The sandbox as an aiohttp application."""

import json
import math
import time
from dataclasses import asdict
from typing import Final

from aiohttp import web

from nanonets_proxy.sandbox import page
from nanonets_proxy.sandbox.api import docstrange, v2, v4, v4_review
from nanonets_proxy.sandbox.middleware import api_middleware
from nanonets_proxy.sandbox.policy import MIB, SandboxPolicy, check_key, parse_limit
from nanonets_proxy.sandbox.state import SANDBOX, Sandbox
from nanonets_proxy.sandbox.uploads import expect

OPERATIONS = (*v4.OPERATIONS, *v4_review.OPERATIONS, *v2.OPERATIONS, *docstrange.OPERATIONS)
_MAX_SMALL_BODY_BYTES = MIB  # for JSON and forms, which are read whole
_PROXY_SCHEME: Final = web.AppKey("proxy_scheme", str)


async def _page(request: web.Request) -> web.Response:
    policy, proxy_scheme = request.app[SANDBOX].policy, request.app[_PROXY_SCHEME]
    base = f"{proxy_scheme or request.scheme}://{request.host}"
    text = page.render(policy, OPERATIONS, base=base, needs_key=not proxy_scheme)
    headers = {"Content-Security-Policy": page.SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, content_type="text/html", headers=headers)


async def _stats(request: web.Request) -> web.Response:
    return web.json_response(request.app[SANDBOX].stats.to_json())


async def _requests(request: web.Request) -> web.Response:
    return web.json_response({"requests": [asdict(seen) for seen in request.app[SANDBOX].requests]})


async def _reset(request: web.Request) -> web.Response:
    request.app[SANDBOX].reset()
    return web.Response(status=204)


async def _change_keys(request: web.Request) -> web.Response:
    """Takes `{"keys": [str, ...], "grace_s": number}`.

    Accepts the given keys from now on, and the previous keys for `grace_s` more seconds.
    """
    try:
        members = json.loads(await request.read())
        keys, grace_s = members["keys"], float(members.get("grace_s", 0))
        if not isinstance(keys, list) or not (grace_s >= 0 and math.isfinite(grace_s)):
            raise ValueError  # noqa: TRY301 - one response for every kind of invalid body
        for key in keys:
            check_key(key)
    except (ValueError, TypeError, KeyError, AttributeError):
        return web.Response(status=400, text='The body must be JSON like {"keys": ["my-key"], "grace_s": 0}.\n')
    request.app[SANDBOX].keys.replace(keys, grace_s, time.monotonic())
    return web.Response(status=204)


async def _change_limit(request: web.Request) -> web.Response:
    """Takes `{"limit": str}`, such as `20/60s` or `none`. The kind of the limit stays."""
    try:
        limit = parse_limit(json.loads(await request.read())["limit"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return web.Response(status=400, text='The body must be JSON like {"limit": "20/60s"}.\n')
    request.app[SANDBOX].change_limit(limit)
    return web.Response(status=204)


def create_app(policy: SandboxPolicy, proxy_scheme: str = "") -> web.Application:
    """Returns a simulated Nanonets API, which keeps its state in memory and shares it with no other application.

    `proxy_scheme` is set if all callers use a proxy that adds the key and keeps their Host: `http` or `https`.

    Serve it with `access_log=None` if speed matters.
    """
    app = web.Application(
        middlewares=[api_middleware], client_max_size=min(policy.max_body_bytes, _MAX_SMALL_BODY_BYTES)
    )
    app[SANDBOX] = Sandbox(policy)
    app[_PROXY_SCHEME] = proxy_scheme
    app.router.add_get("/", _page)
    app.router.add_get("/sandbox/stats", _stats)
    app.router.add_get("/sandbox/requests", _requests)
    app.router.add_post("/sandbox/reset", _reset)
    app.router.add_post("/sandbox/keys", _change_keys)
    app.router.add_post("/sandbox/limit", _change_limit)
    for path in dict.fromkeys(operation.path for operation in OPERATIONS):
        # Nanonets' samples write paths both with and without a slash at the end.
        for resource in (app.router.add_resource(path), app.router.add_resource(f"{path}/")):
            for operation in OPERATIONS:
                if operation.path == path:
                    resource.add_route(operation.method, operation.handler, expect_handler=expect)
                    if operation.method == "GET":
                        resource.add_route("HEAD", operation.handler, expect_handler=expect)
    return app
