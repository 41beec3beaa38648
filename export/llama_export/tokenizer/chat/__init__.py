"""Dialogs as a checkpoint's own chat template writes them: rendered within limits, then encoded."""
