"""The compute pool: models, engines, the kinds of work they do, and the worker processes they do it in."""
