"""What responses tell about rate limits: how long to wait, how much is left, whether a quota is used up."""
