"""Node shapes: a subset of SHACL Core, for the ontology's own graph and for tables of mapped values."""
