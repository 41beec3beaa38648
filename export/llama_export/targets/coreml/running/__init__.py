"""A Core ML package as a session: in Core ML on a Mac, in the evaluator elsewhere."""
