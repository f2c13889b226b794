"""What was done to records, how it is counted, and the owner's chain of charges."""
