"""ExecuTorch's exporter is measured with a checkpoint of Meta's names and rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from artifacts.meta_layout import meta_state
from artifacts.tiny import TINY, write_checkpoint
from safetensors.torch import load_file

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "meta_checkpoint.py"


def test_names_and_rows_are_those_of_meta(tmp_path):
    spec = importlib.util.spec_from_file_location(PROGRAM.stem, PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    source = write_checkpoint(tmp_path / "model")
    written = dict(program.meta_weights(source))
    expected = meta_state(load_file(source / "model.safetensors"), TINY)
    assert next(iter(written)) == "tok_embeddings.weight"
    assert written.keys() == expected.keys() - {"output.weight"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())
