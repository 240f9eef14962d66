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
