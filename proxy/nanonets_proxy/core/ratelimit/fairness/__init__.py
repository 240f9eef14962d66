"""The turns of the callers: in the queue of one scope, and for the places in flight of all scopes."""
