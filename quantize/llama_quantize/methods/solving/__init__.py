"""The linear algebra of calibrated methods: no names, no files, no model."""
