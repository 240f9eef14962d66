"""Where the API key comes from."""
