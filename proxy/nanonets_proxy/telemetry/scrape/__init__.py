"""What a scrape gets: the metrics of requests, scopes and jobs, and their text."""
