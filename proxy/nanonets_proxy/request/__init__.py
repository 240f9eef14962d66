"""The life of one request: guard, wait, forward, judge, relay, record."""
