"""The cure of each kind of error: the `code` of an error response, or `upstream_` and the upstream's status."""

from typing import Final

RAISE_OPEN_FILES: Final = (
    "raise the limit of open files: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of containers"
)
_ADVICE: Final = {
    "bad_request": "The caller sent a malformed request: the event in the log says what is wrong with it.",
    "body_copy_discarded": "Raise replay_limit or spool_total, so that large uploads can be sent again.",
    "caller_gone": "The caller hung up before its response. If wait_s is most of total_s in its log event, it "
    "waited for the limit or for a key: raise the caller's time limit above max_wait. Otherwise Nanonets was slow.",
    "daily_budget_used_up": "The caller has used up its daily_budget: raise it, or wait until midnight UTC.",
    "forbidden_by_policy": "An access rule forbids the request: correct the caller, policy or read_only.",
    "forbidden_host": "The caller used a name that the proxy does not know: add it to allowed_hosts.",
    "forbidden_origin": "A web page tried to call the proxy. No setting permits that.",
    "forbidden_peer": "An address that may not call tried to: if it should, add it to allow_from or allow_uids.",
    "head_too_large": "The caller sent a header section beyond 64 KiB: correct the caller.",
    "http_version_not_supported": "The caller speaks another version of HTTP: use HTTP/1.1.",
    "idempotency_key_reused": "The caller used one Idempotency-Key for two requests: each one needs its own.",
    "internal_error": "A defect of the proxy: report it with the traceback of the event request_failed.",
    "job_not_cancellable": "The caller cancelled a job that is being sent or has ended: look at its state.",
    "job_without_response": "The caller fetched the response too early, or of a lost job: look at its state.",
    "jobs_full": "Too many jobs are queued or being sent: submit less, or raise max_jobs.",
    "jobs_storage_full": "The disk of the setting jobs is full: make room, raise jobs_total, or lower jobs_keep.",
    "jobs_unavailable": "The store of the jobs cannot be used: see the alert jobs_stopped.",
    "larger_than_limit": "The request has more pages than the whole rate limit: send fewer pages at once.",
    "method_not_allowed": "The caller used CONNECT, TRACE or TRACK: correct the caller.",
    "not_found": "The path does not exist: correct the caller.",
    "not_implemented": "The caller used a feature that the proxy does not support: the event in the log names it.",
    "rate_limit_exceeded": "The upstream's limit did not allow the request in time: send less, let it wait longer "
    "(max_wait, or the caller's Prefer: wait), or ask Nanonets for a higher limit.",
    "request_timeout": "The caller sent its request too slowly: look at the caller and the network to it.",
    "shutting_down": "The request came while the proxy was stopping: the caller can send it again.",
    "target_too_long": "The caller's URL is too long: correct the caller.",
    "too_many_connections": "All connections are busy: raise max_connections and the limit of open files.",
    "unknown_caller": "The caller sent no valid token: give it one from `nanonets-proxy token NAME`.",
    "upstream_bad_reply": "Nanonets, or something on the way to it, sent a malformed response: check the network.",
    "upstream_closed": "The connection broke during the request: look at the network and at Nanonets' status page.",
    "upstream_dns_failed": "The upstream's name does not resolve: check this machine's resolver.",
    "upstream_egress_proxy": "The egress proxy refused the connection: check egress_proxy and that proxy's rules.",
    "upstream_forbidden_address": "The upstream's name resolves to a private address: check the resolver, or set "
    "upstream_private.",
    "upstream_head_too_large": "The upstream's header section is too large: look for a proxy on the way.",
    "upstream_refused": "The upstream refuses connections: check the setting upstream and firewalls.",
    "upstream_timeout": "No response in time: look at Nanonets' status page, or raise first_byte_timeout. If no "
    "connection was made, the alert upstream_connection_failed names the step that hangs.",
    "upstream_tls_certificate": "The upstream's certificate is not trusted: check ca_file, this machine's clock, "
    "and whether something on the way intercepts TLS.",
    "upstream_tls_failed": "The TLS handshake failed: check whether something on the way intercepts TLS "
    "or ends the connection, and whether the upstream knows TLS 1.2.",
    "upstream_unreachable": "No route to the upstream: check the network and the firewall.",
    "upstream_upgraded": "The upstream changed the protocol, which the proxy never asks for: check what responds.",
    "upstream_401": "The upstream rejects the key: bring a valid key to its source.",
    "upstream_403": "The key may not do this: check the rights of the key at Nanonets.",
    "upstream_404": "Nanonets has no such resource: check the caller's model, workflow or document id.",
    "upstream_413": "The document is too large for Nanonets: split it.",
    "upstream_429": "Nanonets refused the request for longer than it may wait: send less, or raise max_wait.",
}
_ADVICE_BY_REASON: Final = {
    "queue_full": "Too many requests wait: let callers send less, or raise max_waiting, so that more can wait.",
    "queue_full_for_caller": "Too many requests of the caller wait: let it send less, or raise "
    "max_waiting_per_caller.",
}
_SERVER_ERROR: Final = "Nanonets failed: look at its status page; the caller can send the request again."
_CLIENT_ERROR: Final = "Nanonets rejected the request: the body of its response says why."
_UNKNOWN: Final = "See the event `request` in the log: its fields code and error say more."


def advice_for(kind: str, reason: str = "") -> str:
    """Returns a sentence with the cure. `reason` is that of the error, if it has one."""
    if (advice := _ADVICE_BY_REASON.get(reason, _ADVICE.get(kind))) is not None:
        return advice
    if kind.startswith("upstream_4"):
        return _CLIENT_ERROR
    return _SERVER_ERROR if kind.startswith("upstream_5") else _UNKNOWN


def secret_flag_advice(setting: str) -> str:
    """Returns the cure for a setting whose secret is on the command line."""
    variable = f"nanonets_proxy_{setting}"
    return (
        f"set the variable {variable.upper()} or the secret file {variable} in place of the flag, and change the "
        "secret: all users of this machine can read a command line"
    )
