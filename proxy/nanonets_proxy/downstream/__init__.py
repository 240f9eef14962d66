"""The callers' side: the server, the life of one request, the relay of its answer."""
