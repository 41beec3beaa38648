"""From a checkpoint to proved bundles: the plan, and the pipeline that executes it."""
