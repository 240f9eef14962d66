"""One caller's connection: its states, requests, bodies, and how many bytes it reads."""
