"""Network addresses and key pins as values."""
