"""Which GETs share one upstream request, and for how long."""
