"""Fixtures for tests of programs that call Nanonets. pytest loads `plugin.py` at each start, and only that."""
