"""Usage of the API: how attempts are counted and rolled up, and what a policy would have rejected."""
