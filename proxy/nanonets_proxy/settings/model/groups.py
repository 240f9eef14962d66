"""Which settings belong together: by topic, by process, and by what a reload can change."""

from typing import Final

GROUPS: Final[dict[str, str]] = {
    "api_key_file": "API key",
    "key_gap": "Key rotation",
    "vault_path": "API key in HashiCorp Vault or OpenBao (extra `vault`)",
    "aws_secret": "API key in AWS Secrets Manager (extra `aws`)",
    "listen": "Listeners",
    "caller_tokens": "Authentication of callers",
    "policy": "Access rules and budgets",
    "coordination": "One rate limit for many replicas (extra `redis`)",
    "jobs": "Durable jobs",
    "max_connections": "Connections",
    "upstream": "Upstream",
    "max_wait": "Queue and rate limits",
    "ledger": "Usage and alarms",
    "body_memory": "Copies of request bodies",
    "server_timing": "Responses, logs and shutdown",
}
"""The first setting of each group, and the group's title in `--help` and in the reference."""

PROCESS_WIDE: Final = frozenset(
    {
        *("admin_allow_from", "admin_tokens"),
        *("admin_listen", "admin_quit", "drain_delay", "drain_timeout", "ledger", "ledger_days", "ledger_rows"),
        *("otlp_endpoint", "otlp_share", "otlp_metrics_endpoint", "otlp_metrics_interval"),
        *("webhook_url", "webhook_secret_file"),
        *("log_format", "log_level", "sandbox"),
    }
)
"""The settings that all environments of a process share. A table `[environments.NAME]` may set all others."""

NEEDS_RESTART: Final = frozenset(
    {
        *("listen", "admin_listen", "admin_quit", "upstream", "auth", "preset", "state_file", "sandbox"),
        *("ledger", "ledger_days", "ledger_rows"),
        *("otlp_endpoint", "otlp_share", "otlp_metrics_endpoint", "otlp_metrics_interval"),
        *("webhook_url", "webhook_secret_file"),
        *("api_key_file", "api_key_command", "api_key_command_variables", "key_refresh", "key_timeout"),
        *("vault_path", "vault_address", "vault_mount", "vault_field", "vault_auth", "vault_auth_mount"),
        *("vault_role", "vault_credential_file", "vault_namespace", "vault_ca_file"),
        *("aws_secret", "aws_secret_field", "aws_region"),
        *("coordination", "coordination_account", "coordination_required"),
        *("jobs", "jobs_keep", "max_jobs", "jobs_total"),
    }
)
"""The settings that only a restart changes. A reload applies all others, except that it turns no TLS on or off."""

TLS: Final = frozenset({"tls_cert", "tls_key", "tls_client_ca"})
"""The settings that need a restart if they turn TLS on or off."""

VALID_BY_TEXT: Final = frozenset(
    {
        *("key_gap", "key_grace", "key_probe", "key_max_age"),
        *("listen", "admin_listen", "admin_allow_from", "admin_quit", "allow_from", "allowed_hosts", "allow_uids"),
        *("caller_header", "keep_alive", "head_timeout", "body_timeout", "min_body_rate"),
        *("policy", "read_only", "daily_budget", "policy_dry_run"),
        *("connect_timeout", "first_byte_timeout", "idle_timeout", "upstream_keep_alive"),
        *("pool_size", "pool_per_caller", "retries", "retry_backoff", "retry_budget"),
        *("max_wait", "max_waiting", "max_waiting_per_caller", "scopes", "cost_header", "limits", "lane_weights"),
        *("quota_probe", "coalesce", "revalidate"),
        *("body_memory", "body_memory_total", "spool_total", "replay_limit"),
        *("server_timing", "via", "trace_upstream"),
        *("log_format", "log_level", "log_successes", "drain_delay", "drain_timeout"),
    }
)
"""The settings that are no secret, and that are valid or not whatever other files and programs there are."""
