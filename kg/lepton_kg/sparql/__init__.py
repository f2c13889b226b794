"""SPARQL 1.1 queries over published versions: read only, bounded, each in a process that can be killed."""
