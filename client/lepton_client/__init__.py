"""The data owner's daemon: its policy, its privacy ledger, its part in every round."""
