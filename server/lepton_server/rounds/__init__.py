"""What becomes of a round's sum."""
