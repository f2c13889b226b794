"""Generated from `protos/lepton/v1/*.proto`; `make protos` writes it anew."""
