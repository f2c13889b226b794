"""The plan compiler's version: part of every round's terms, so that all members read a task alike."""

from __future__ import annotations

#: Raised whenever the same task, mapping and ontology would compile to other values.
COMPILER_VERSION = 1
