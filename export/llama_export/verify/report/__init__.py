"""A verification's result for terminals, programs and pages."""
