"""Shared meaning: ontologies by hash, units, owners' mappings, and the plans that turn columns into tensors."""
