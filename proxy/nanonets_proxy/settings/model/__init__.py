"""The definition of every setting: its name, its type, its default and its description."""
