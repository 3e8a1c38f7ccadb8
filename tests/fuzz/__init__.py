"""Random cases: seeded generators of data, models, guides, fits and calls, held against one rule (see `rule`)."""
