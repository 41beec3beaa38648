"""An artifact in memory that can be tapped: the eager model, operator by operator, with faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.llama import intermediates
from llama_export.llama.attention import attention_reference
from llama_export.llama.intermediates import Intermediates, in_layer
from llama_export.llama.model import Llama

Edit = Callable[[str, Tensor], Tensor | None]
Attend = Callable[..., tuple[Tensor, tuple[Tensor, Tensor]]]


class EagerProbe:
    """Runs chunks through a model and records every point.

    Args:
        model: with the artifact's weights.
        edit: gets each point's value as it was computed, and gives what the artifact has instead,
            or None where it has nothing of that name.
        attend: the attention of `LAYER`, with the arguments of `attention_reference`.
    """

    LAYER = 1

    def __init__(
        self,
        model: Llama,
        edit: Edit = lambda point, value: value,
        attend: Attend = attention_reference,
    ) -> None:
        self.model = model
        self.edit = edit
        self.attend = attend
        self.calls: list[list[int]] = []

    @torch.inference_mode()
    def __call__(self, chunks: Sequence[Sequence[int]]) -> tuple[Intermediates, ...]:
        config = self.model.config
        self.calls.append([len(chunk) for chunk in chunks])
        past = self.model.empty_cache(0)
        tapped = []
        for chunk in chunks:
            self._values: dict[str, Tensor] = {}
            past = self._run(torch.tensor([list(chunk)]), past)
            values = {point: value[0].numpy().copy() for point, value in self._values.items()}
            tapped.append(Intermediates(values, {point: f"value of {point}" for point in values}))
        assert len(past) == config.num_hidden_layers
        return tuple(tapped)

    def _tap(self, point: str, value: Tensor) -> Tensor:
        edited = self.edit(point, value.clone())
        if edited is None:
            return value
        self._values[point] = edited
        return edited

    def _run(self, ids: Tensor, past):
        model = self.model.model
        hidden = self._tap(intermediates.EMBEDDING, model.embed_tokens(ids))
        presents = []
        for index, layer in enumerate(model.layers):
            hidden, present = self._layer(index, layer, hidden, past[index])
            presents.append(present)
        normed = self._tap(intermediates.FINAL_NORM, model.norm(hidden))
        self._tap(intermediates.HEAD, self.model.lm_head(normed[:, -1:]))
        return presents

    def _layer(self, index: int, layer, hidden: Tensor, past):
        def tap(part: str, value: Tensor) -> Tensor:
            return self._tap(in_layer(index, part), value)

        attention, mlp = layer.self_attn, layer.mlp
        normed = tap(intermediates.INPUT_NORM, layer.input_layernorm(hidden))
        products = (attention.q_proj, attention.k_proj, attention.v_proj)
        sizes = [product.out_features for product in products]
        qkv = tap(intermediates.QKV, torch.cat([product(normed) for product in products], -1))
        start = past[0].shape[2]
        tap(intermediates.PAST_KEY, past[0])
        tap(intermediates.PAST_VALUE, past[1])
        room = torch.zeros(1, past[0].shape[1], normed.shape[1], attention.head_dim)
        grown = [torch.cat((rows, room), 2) for rows in past]
        attend = self.attend if index == self.LAYER else attention_reference
        mixed, (key, value) = attend(
            *qkv.split(sizes, -1), grown, torch.tensor(start), self.model.model.inv_freq
        )
        present = (tap(intermediates.KEY, key), tap(intermediates.VALUE, value))
        mixed = tap(intermediates.MIXED, mixed)
        hidden = tap(
            intermediates.ATTENTION_SUM, hidden + tap(intermediates.OUTPUT, attention.o_proj(mixed))
        )
        normed = tap(intermediates.POST_NORM, layer.post_attention_layernorm(hidden))
        gate, up = (
            tap(intermediates.GATE, mlp.gate_proj(normed)),
            tap(intermediates.UP, mlp.up_proj(normed)),
        )
        gated = tap(intermediates.ACTIVATION, functional.silu(gate) * up)
        hidden = tap(intermediates.MLP_SUM, hidden + tap(intermediates.DOWN, mlp.down_proj(gated)))
        return hidden, present
