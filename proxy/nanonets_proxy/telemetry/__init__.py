"""Log events, metrics, key status and redaction."""
