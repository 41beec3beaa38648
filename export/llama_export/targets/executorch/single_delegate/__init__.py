"""From the traced graph to a `.pte` with one delegate that takes the model whole."""
