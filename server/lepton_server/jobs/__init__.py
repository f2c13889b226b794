"""The life of a job: pure machine, phases, journal."""
