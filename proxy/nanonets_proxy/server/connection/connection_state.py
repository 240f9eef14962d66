"""The states of a caller's connection, which `caller_connection.py` describes."""

import enum


class ConnectionState(enum.Enum):
    IDLE = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    SKIPPING = enum.auto()
    LINGERING = enum.auto()
    CLOSED = enum.auto()
