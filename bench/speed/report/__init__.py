"""Targets, tables, the chart, and docs/speed.md."""
