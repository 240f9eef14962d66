"""The load: closed and open loops, bodies of 1 GiB, and callers with persistent connections."""
