"""The composition root: a frozen configuration in, running servers out."""
