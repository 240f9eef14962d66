"""Which limit a request counts against, and how much of it the request uses."""
