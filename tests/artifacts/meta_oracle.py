"""Llama as Meta's own program computes it, in float32, on the tensors of a `.pth`.

Rotations of neighbouring pairs as complex numbers, after llama-models' `models/llama3/model.py`. No
line of ours is used: neither names, order of rows, rope nor attention. Shapes: S tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def butterfly(x: Tensor) -> Tensor:
    """Compute the normalised Walsh-Hadamard transform of the last dimension, in natural order."""
    width, step = x.shape[-1], 1
    while step < width:
        pairs = x.unflatten(-1, (-1, 2, step))
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack((first + second, first - second), -2).flatten(-3)
        step *= 2
    return x / math.sqrt(width)


class MetaLlama:
    """A model, of floats or of int8 codes with scales.

    Args:
        state: tensors by Meta's names.
        params: keys of params.json.
        factor: factor of the stretched rope; 0: there is none.
        rotated: whether the input of w2 is rotated, as SpinQuant's weights need it.
    """

    def __init__(
        self, state: Mapping[str, Tensor], params: Mapping, factor: float, *, rotated: bool = False
    ) -> None:
        self.state, self.params, self.rotated = state, params, rotated
        self.heads, self.kv = params["n_heads"], params["n_kv_heads"]
        self.width = params.get("head_dim", params["dim"] // self.heads)
        self.freqs = 1 / params["rope_theta"] ** (
            torch.arange(0, self.width, 2).float() / self.width
        )
        if factor:
            self.freqs = torch.tensor([self._stretched(f, factor) for f in self.freqs.tolist()])

    @staticmethod
    def _stretched(freq: float, factor: float) -> float:
        wavelength = 2 * math.pi / freq
        if wavelength < 8192 / 4:
            return freq
        if wavelength > 8192:
            return freq / factor
        smooth = (8192 / wavelength - 1) / (4 - 1)
        return (1 - smooth) * freq / factor + smooth * freq

    def weight(self, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"].float()
        scales = self.state.get(f"{name}.scales")
        if scales is None:
            return weight
        scales = scales.float().view(len(weight), -1, 1)
        return (weight.view(len(weight), scales.shape[1], -1) * scales).flatten(1)

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weight(name).T
        if f"{name}.adaptor.A.weight" in self.state:
            side = x @ self.weight(f"{name}.adaptor.A").T @ self.weight(f"{name}.adaptor.B").T
            y = y + self.params["lora_args"]["scale"] * side
        return y

    def norm(self, x: Tensor, name: str) -> Tensor:
        eps = self.params["norm_eps"]
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * self.weight(name)

    def rotate(self, x: Tensor, heads: int) -> Tensor:
        pairs = torch.view_as_complex(x.view(len(x), heads, -1, 2).contiguous())
        angles = torch.outer(torch.arange(len(x)).float(), self.freqs)
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.view_as_real(turned).flatten(2)

    def attention(self, x: Tensor, at: str) -> Tensor:
        q = self.rotate(self.linear(x, f"{at}.wq"), self.heads).transpose(0, 1)
        k = self.rotate(self.linear(x, f"{at}.wk"), self.kv).transpose(0, 1)
        v = self.linear(x, f"{at}.wv").view(len(x), self.kv, -1).transpose(0, 1)
        k, v = (each.repeat_interleave(self.heads // self.kv, 0) for each in (k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(self.width)
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1)
        mixed = torch.softmax(scores + mask, -1) @ v
        return self.linear(mixed.transpose(0, 1).flatten(1), f"{at}.wo")

    def feed_forward(self, x: Tensor, at: str) -> Tensor:
        inner = functional.silu(self.linear(x, f"{at}.w1")) * self.linear(x, f"{at}.w3")
        return self.linear(butterfly(inner) if self.rotated else inner, f"{at}.w2")

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> Tensor:
        """Compute `[S, vocab]`."""
        x = self.weight("tok_embeddings")[tokens]
        for layer in range(self.params["n_layers"]):
            at = f"layers.{layer}"
            x = x + self.attention(self.norm(x, f"{at}.attention_norm"), f"{at}.attention")
            x = x + self.feed_forward(self.norm(x, f"{at}.ffn_norm"), f"{at}.feed_forward")
        head = "output" if "output.weight" in self.state else "tok_embeddings"
        return self.linear(self.norm(x, "norm"), head)
