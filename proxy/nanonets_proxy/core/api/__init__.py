"""What is known of the Nanonets API: its routes, and what its responses look like."""
