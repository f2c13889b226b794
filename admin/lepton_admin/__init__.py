"""The `lepton` command, its demonstration, and what researchers and operators do with a coordinator."""
