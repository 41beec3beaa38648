"""Compute what an int4 token table is asked for: by the lookup, and by the head where they are one.

A lookup wants each row as it is: every column counts alike. A head multiplies what the last norm
gives. Of a tied table both are asked, and its codes must be known before the first layer's, so the
head's inputs are those of the unquantised model: a pass of its own, over fewer tokens than a
linear's. It knows no method.

Shapes: B windows, S tokens of one, E hidden_size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_export.calibration.layer_streams import chunks
from llama_export.calibration.sums import SquareSum
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.streamed import ReadWeight, embed, load_layer, normed
from llama_quantize.calibration import InputStatistics

# All hidden states are in memory: 67 MB of a width of 2048.
_MOST_TOKENS = 8192
# Of the head's inputs. The demo's table cost 0.0101 nats by the weights alone, and 0.0083, 0.0079,
# 0.0078 and 0.0080 with shares of 0, 0.3, 1 and 3; SmolLM2's 0.120, and 0.060 to 0.063 with any.
_LOOKUP_SHARE = 1.0


@torch.no_grad()
def table_inputs(config: LlamaConfig, read: ReadWeight, windows: Tensor) -> InputStatistics:
    """Return what stands for the inputs of a token table, `[V, E]`.

    Args:
        config: shape of the model.
        read: function that returns an original weight by its name.
        windows: token ids int64 `[B, S]`.
    """
    alike = torch.eye(config.hidden_size)
    if not config.tie_word_embeddings:
        return InputStatistics(alike, 1)
    some = windows[: max(1, _MOST_TOKENS // windows.shape[1])]
    gram = _head_gram(config, read, some)
    total = gram.total()
    alike *= _LOOKUP_SHARE * total.diagonal().mean()
    return InputStatistics(total + alike, gram.count)


def _head_gram(config: LlamaConfig, read: ReadWeight, windows: Tensor) -> SquareSum:
    """Run the unquantised model, and add up what its head takes."""
    inv_freq = inverse_frequencies(config)
    parts = chunks(windows)
    hidden = embed(config, read, windows)
    for index in range(config.num_hidden_layers):
        layer = load_layer(config, read, index)
        for part in parts:
            hidden[part] = layer(hidden[part], None, None, inv_freq)[0]
    gram = SquareSum(config.hidden_size)
    for part in parts:
        inputs = normed(config, read, hidden[part])
        gram.add(inputs)
    return gram
