"""The Core ML target: packages for Apple's devices. `coreml_evaluator` runs them anywhere."""
