"""Runs these tests on uvloop, the event loop of production."""

from support.uvloop_only import pytest_asyncio_loop_factories  # noqa: F401 - pytest calls the hook
