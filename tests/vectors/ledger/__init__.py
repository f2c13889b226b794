"""Ledgers as earlier releases wrote them. `format-1.jsonl`: the release before blocks; key: the bytes 0 to 31."""
