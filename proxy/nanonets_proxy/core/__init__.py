"""The pure core: it decides and returns; no clock, no input or output, no logging."""
