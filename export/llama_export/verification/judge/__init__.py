"""Turn measurements into rows: each figure beside its limit and the limit's reason."""
