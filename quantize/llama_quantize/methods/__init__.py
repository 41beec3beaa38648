"""How codes and scales are chosen: one file a method, found by name."""
