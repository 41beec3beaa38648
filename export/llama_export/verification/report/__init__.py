"""Lay out a verification's result for terminals and pages."""
