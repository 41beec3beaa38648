"""Which of a tensor's sizes are the manifest's to name, and which are the artifact's own."""

from __future__ import annotations

import pytest

from llama_export.bundle.graph_spec import TensorSpec
from llama_export.targets.own_description import kept_names

RECORDED = (TensorSpec("ids", "int32", (1, "tokens")),)


@pytest.mark.parametrize(
    ("own", "single", "kept"),
    [
        ((1, "varies"), False, (1, "tokens")),
        ((1, 64), False, (1, 64)),  # fixed, whatever the manifest says
        ((2, "varies"), False, (2, "tokens")),
        ((1, 1), True, (1, "tokens")),  # a context of one position: nothing can vary
        ((1, 1), False, (1, 1)),
        ((1, 1, 1), True, (1, 1, 1)),
    ],
)
def test_what_varies_has_the_manifests_name(own, single, kept):
    found = kept_names(TensorSpec("", "int64", own), RECORDED, 0, single=single)
    assert found == TensorSpec("ids", "int64", kept)


def test_a_tensor_that_is_not_recorded_keeps_its_own():
    own = TensorSpec("more", "int64", (1, "varies"))
    assert kept_names(own, RECORDED, 1) == own
