"""Pure mechanisms both sides of Lepton share: no socket, file, clock, thread, torch, gRPC or SQL."""

__version__ = "0.1.0"
