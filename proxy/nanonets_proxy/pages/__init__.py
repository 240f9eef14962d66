"""Counts the pages of uploads, for limits in pages. The counting runs in a process of its own."""
