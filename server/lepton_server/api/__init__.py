"""The RPCs: each servicer turns messages into calls and answers into messages, and decides nothing."""
