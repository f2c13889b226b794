"""Secure aggregation: the coordinator learns the sum of its members' updates, and nothing else about them."""
