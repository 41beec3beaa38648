"""From the traced graph to a Core ML package, built in MIL."""
