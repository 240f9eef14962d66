"""Messages between replicas and the leader's lease, over Redis."""
