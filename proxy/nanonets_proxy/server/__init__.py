"""The callers' side: listeners, connections, the HTTP parser's shell, TLS."""
