"""Recipes or bundles side by side on a text: measured, recommended, shown on a page."""
