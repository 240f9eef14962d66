"""HTTP messages as values: header fields, heads, targets, preferences, retry decisions."""
