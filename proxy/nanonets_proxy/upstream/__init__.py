"""Nanonets' side: connections, pool, TLS, egress proxy, bodies that can be sent again."""
