"""Local training: differentially private steps in a worker process of the daemon."""
