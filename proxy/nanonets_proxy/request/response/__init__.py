"""The response to one request: reads its start, relays it, and recognises what the API did not send."""
