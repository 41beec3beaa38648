"""How good a bundle is at tasks that other models are scored on, and how well it foretells texts."""
