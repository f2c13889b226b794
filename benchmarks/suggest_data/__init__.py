"""What the ontology benchmarks are fed with."""
