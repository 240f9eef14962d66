"""Looks for what only shows after a while: a real fleet for minutes or hours, and a simulated one for days."""
