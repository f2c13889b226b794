"""Alembic migrations, both ways; `lepton_server.store.migrate` runs them."""
