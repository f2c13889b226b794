"""Rounds without secure aggregation: the coordinator sees each member's update, signed, and adds them up itself."""
