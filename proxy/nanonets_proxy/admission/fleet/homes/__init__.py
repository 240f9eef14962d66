"""The gates that decide on a replica's claims: its own, or the leader's."""
