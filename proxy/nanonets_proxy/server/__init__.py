"""The callers' side: listeners, limits of connections, TLS, error responses."""
