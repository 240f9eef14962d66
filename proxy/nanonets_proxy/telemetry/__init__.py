"""The log, metrics, traces, alerts and the usage ledger, and the redaction of secrets in all of them."""
