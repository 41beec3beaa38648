"""How good a bundle is at tasks that others are scored on, and how well it foretells texts."""
