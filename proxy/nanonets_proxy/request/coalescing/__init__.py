"""One upstream request for identical GETs that are in flight at the same time."""
