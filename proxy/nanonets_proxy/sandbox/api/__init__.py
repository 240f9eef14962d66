"""The endpoints of the simulated APIs: Nanonets v2 and v4, and DocStrange."""
