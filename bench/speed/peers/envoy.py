"""Envoy's configuration. Unlike the other peers, Envoy also counts requests."""

import json
from typing import Final

from speed.peers.launches import AUTHORIZATION, Launch, Setting

_TYPES: Final = "type.googleapis.com/envoy.extensions"


def launch(setting: Setting) -> Launch:
    file = setting.home / "envoy.json"
    resources = {"listeners": [_listener(setting)], "clusters": [_cluster(setting)]}
    file.write_text(json.dumps({"static_resources": resources}, indent=1))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path", str(file)]
    return Launch([str(setting.tools / "venv/bin/envoy"), *options])


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(setting: Setting) -> dict[str, object]:
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "api", "timeout": "0s", "host_rewrite_literal": setting.upstream.authority},
        "request_headers_to_add": [
            {
                "header": {"key": "authorization", "value": AUTHORIZATION},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    return {
        "name": "callers",
        "address": _address(setting.port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _cluster(setting: Setting) -> dict[str, object]:
    endpoint = {"address": _address(setting.upstream.port)}
    bounds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 20_000)
    cluster: dict[str, object] = {
        "name": "api",
        "type": "STATIC",
        "connect_timeout": "60s",  # a busy machine needs more than the default of 5 s for 10,000 connections
        "circuit_breakers": {"thresholds": [bounds]},
        "load_assignment": {"cluster_name": "api", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    if setting.upstream.ca_file:
        trusted = {
            "trusted_ca": {"filename": str(setting.upstream.ca_file)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
        }
        context = {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "localhost",
            "common_tls_context": {
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": trusted,
            },
        }
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster
