"""Applies counters, key check, rate limit, latency and simulated failures to every API request."""

import asyncio
import base64
import binascii
import hmac
import time

from aiohttp import web

from nanonets_proxy.sandbox import responses
from nanonets_proxy.sandbox.limiter import Refused, is_docstrange, scope_of
from nanonets_proxy.sandbox.policy import DISCONNECT, OK, HintStyle
from nanonets_proxy.sandbox.state import DIGEST, SANDBOX, Handler, RequestDigest, Sandbox, SeenRequest

_UNKNOWN_OPERATION = "no such call"


def is_authorized(authorization: list[str], api_keys: tuple[str, ...], *, bearer: bool = False) -> bool:
    """Returns whether `authorization` is a single field with a valid key as user name and an empty password.

    RFC 7617 §2: `Basic` and the base64 of `user:password`. Two Authorization fields are never valid. With `bearer`,
    the field is `Bearer` and the key (RFC 6750 §2.1).
    """
    if len(authorization) != 1:
        return False
    scheme, _, credentials = authorization[0].partition(" ")
    if scheme.lower() != ("bearer" if bearer else "basic"):
        return False
    if bearer:
        token = credentials.strip().encode("utf-8", "surrogateescape")
        return any(hmac.compare_digest(token, key.encode()) for key in api_keys)
    try:
        user, colon, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return bool(colon) and not password and any(hmac.compare_digest(user, key.encode()) for key in api_keys)


def _name(request: web.Request) -> str:
    """Returns the operation's name in the counters, such as `GET /api/v4/workflows/{workflow}`."""
    resource = request.match_info.route.resource
    return _UNKNOWN_OPERATION if resource is None else f"{request.method} {resource.canonical}"


async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except responses.ApiError as error:
        return responses.from_api_error(error)
    except web.HTTPException as exc:
        return responses.from_http_exception(exc)


@web.middleware
async def api_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Passes an API request to its handler, or responds to it. Remembers the request."""
    if not (request.path.startswith("/api/") or is_docstrange(request.path)):
        return await _respond(request, handler)
    sandbox, began_at, status = request.app[SANDBOX], time.time(), 0
    requests = sandbox.requests
    try:
        response = await _judge(request, handler, sandbox)
        if request.transport is not None and not request.transport.is_closing():
            status = response.status
        return response
    finally:
        requests.append(SeenRequest(request.method, request.raw_path, status, began_at))


async def _judge(request: web.Request, handler: Handler, sandbox: Sandbox) -> web.StreamResponse:
    policy, stats, limiter = sandbox.policy, sandbox.stats, sandbox.limiter
    counts, bearer = stats.of(_name(request)), is_docstrange(request.path)
    keys = sandbox.keys.at(time.monotonic())
    if not is_authorized(request.headers.getall("Authorization", []), keys, bearer=bearer):
        counts.unauthorized += 1
        return responses.docstrange_unauthorized() if bearer else responses.unauthorized()
    scope = scope_of(policy.limit_scope, request.method, request.path) if limiter else None
    if limiter and scope:
        verdict = limiter.decide(scope, time.monotonic())
        if isinstance(verdict, Refused):
            counts.refused += 1
            if bearer:
                return responses.docstrange_rate_limited()
            return responses.rate_limited(verdict.retry_after_s, policy.hint)
    # A reset during the request replaces the sandbox's `stats` and `limiter`; this request keeps its own.
    with stats.admitted(counts):
        try:
            fault = sandbox.next_fault()
            if policy.latency_s:
                await asyncio.sleep(policy.latency_s)
            if fault != OK:
                counts.failed += 1
                return _simulate(fault, request, policy.hint)
            digest = request[DIGEST] = RequestDigest(request.method, request.raw_path)
            response = await _respond(request, handler)
            if policy.etags and request.method in ("GET", "HEAD"):
                response = responses.with_etag(response, request)
            counts.record(digest.value())
            return response
        finally:
            if limiter and scope:
                limiter.release(scope)


def _simulate(fault: str, request: web.Request, hint: HintStyle) -> web.Response:
    if fault == DISCONNECT:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # reaches nobody
    return responses.simulated_fault(int(fault), hint)
