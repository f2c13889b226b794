"""The `lepton` command: one module a noun, loaded when the noun is used."""
