"""Who may speak to the coordinator, and what each may ask of it."""
