"""What the benchmark of secure aggregation is made of: one measured round, its theory, its plot, and its memory."""
