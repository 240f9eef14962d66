"""The status of a running proxy, as operators see it: its document, and how its parts are computed."""
