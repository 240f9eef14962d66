"""The pure part of durable jobs: states, window, idempotency keys, fingerprints."""
