"""The upstream side: client, connection pool, TLS, egress proxy, request bodies that can be sent again."""
