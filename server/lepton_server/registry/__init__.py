"""Model versions: their first weights and their metrics."""
