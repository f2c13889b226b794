"""The coordinator: jobs, rounds, identities, and what it serves them over."""
