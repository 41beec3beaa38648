"""Train the demo model: a small Llama 3.2 that writes fairy tales, and its vocabulary.

    python tools/train_demo.py --train fairy-tales-train.txt --valid fairy-tales-valid.txt \
        --work .train --output export/llama_export/demo

The corpus is plain text, a paragraph a line, with a blank line before each title. Everything is
seeded; `--work` keeps the state, and the same command resumes from it. The learning rate is
constant until the last quarter of the steps and then falls to zero, so a run may be resumed with a
different `--steps` as long as that quarter has not begun. The result is a Hugging Face folder.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional

from llama_export.llama.config import LlamaConfig, RopeScaling
from llama_export.llama.model import Llama
from llama_export.tokenizer.special_tokens import LLAMA3_SPLIT, SPECIAL_TOKENS

RANKS = 3840
CONFIG = LlamaConfig(
    vocab_size=RANKS + len(SPECIAL_TOKENS),
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=2048,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=RopeScaling(factor=32.0),
    tie_word_embeddings=True,
    bos_token_id=RANKS,
    eos_token_id=(RANKS + 1, RANKS + 8, RANKS + 9),
)
CHAT_SHARE = 0.2
BATCH_TOKENS = 8192
MUON_RATE, ADAM_RATE, WEIGHT_DECAY, DROPOUT = 0.02, 3e-3, 0.05, 0.1
SAVE_EVERY = 100


@dataclass(frozen=True)
class Schedule:
    """Learning rate and row length over the run."""

    steps: int
    warmup_steps: int = 100
    decay_share: float = 0.25

    @property
    def decay_start(self) -> int:
        """The first step of the falling rate, and of the long rows."""
        return round(self.steps * (1 - self.decay_share))

    def rate(self, step: int) -> float:
        """Return the share of the full learning rate: warm-up, constant, linear fall to zero."""
        if step < self.decay_start:
            return min(1.0, (step + 1) / self.warmup_steps)
        return (self.steps - step) / (self.steps - self.decay_start)

    def length(self, step: int) -> int:
        """Return the row length; the last quarter learns to use the whole context."""
        return 512 if step < self.decay_start else CONFIG.max_position_embeddings


def train_tokenizer(text: str) -> Tokenizer:
    """Train a byte-level BPE with the Llama 3 split pattern; the 256 bytes come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=RANKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_tiktoken(tokenizer: Tokenizer, path: Path) -> None:
    """Write the vocabulary as `base64(bytes) rank` lines, the format of Llama 3's file."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain}
    byte_of.update({chr(256 + index): byte for index, byte in enumerate(others)})
    lines = []
    for rank in range(RANKS):
        token = bytes(byte_of[character] for character in tokenizer.id_to_token(rank) or "")
        lines.append(f"{base64.b64encode(token).decode()} {rank}\n")
    path.write_text("".join(lines), encoding="ascii")


def read_stories(path: Path, tokenizer: Tokenizer) -> list[tuple[Tensor, Tensor]]:
    """Encode each story twice: as plain text, and as the answer to a user who asks for it.

    Front matter (blocks of fewer than 400 characters, tables of contents) is left out.
    """
    stories = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        title, _, body = block.strip("\n").partition("\n")
        if len(body) < 400 or title.startswith("Contents"):
            continue
        plain = f"<|begin_of_text|>{title}\n{body}<|end_of_text|>"
        header = "<|start_header_id|>{}<|end_header_id|>\n\n"
        question = f"<|begin_of_text|>{header.format('user')}Tell me a story: {title}<|eot_id|>"
        chat = f"{question}{header.format('assistant')}{body}<|eot_id|>"
        encoded = [torch.tensor(tokenizer.encode(text).ids) for text in (plain, chat)]
        stories.append((encoded[0], encoded[1]))
    return stories


def epoch_stream(stories: list[tuple[Tensor, Tensor]], epoch: int) -> Tensor:
    """Join all stories in this epoch's order, a share of them in the chat form."""
    generator = torch.Generator().manual_seed(epoch)
    order = torch.randperm(len(stories), generator=generator).tolist()
    chat = (torch.rand(len(stories), generator=generator) < CHAT_SHARE).tolist()
    joined = torch.cat(
        [stories[story][is_chat] for story, is_chat in zip(order, chat, strict=True)]
    )
    # Rows start elsewhere in every epoch, so that no sentence is always cut at the same place.
    return joined.roll(int(torch.randint(len(joined), (), generator=generator)))


def batch_at(stories: list[tuple[Tensor, Tensor]], step: int, length: int) -> Tensor:
    """Return the int64 rows `[B, length + 1]` of a step; a pure function of the step."""
    epoch_steps = sum(len(plain) for plain, _ in stories) // BATCH_TOKENS
    epoch, offset = divmod(step, epoch_steps)
    stream = epoch_stream(stories, epoch)
    start = offset * BATCH_TOKENS
    flat = stream[start : start + BATCH_TOKENS + 1]
    return flat.unfold(0, length + 1, length)


def initialise(model: Llama) -> None:
    """Initialise with small random weights; the layers start as the identity."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02 if "embed" in name else parameter.shape[1] ** -0.5)


def optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers, and Adam for the table and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or "layers" not in n]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=WEIGHT_DECAY, momentum=0.95),
        torch.optim.AdamW(others, lr=ADAM_RATE, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


def validation_loss(model: Llama, stream: Tensor, length: int = 512, rows: int = 32) -> float:
    """Return the mean nats a token over up to `rows` rows of the stream, without dropout."""
    model.eval()
    count = min(rows, (len(stream) - 1) // length)
    total = 0.0
    with torch.inference_mode():
        for start in range(0, count * length, length):
            row = stream[start : start + length + 1]
            logits = model(row[None, :-1])[0][0]
            total += float(functional.cross_entropy(logits.float(), row[1:]))
    model.train()
    return total / count


def add_dropout(model: Llama) -> None:
    """Drop a share of what each layer adds, in training only."""
    for name, module in model.named_modules():
        if name.endswith(("o_proj", "down_proj")):
            module.register_forward_hook(
                lambda module, _, output: functional.dropout(output, DROPOUT, module.training)
            )


def write_checkpoint(
    model: Llama, tokenizer: Tokenizer, output: Path, card: dict[str, object]
) -> None:
    """Write the Hugging Face folder: config, bf16 weights, vocabulary, the run's figures."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    del tensors["lm_head.weight"]
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps(CONFIG.to_hf(), indent=2) + "\n"
    (output / "config.json").write_text(config, encoding="utf-8")
    write_tiktoken(tokenizer, output / "tokenizer.model")
    figures = json.dumps(card, indent=2) + "\n"
    (output / "training.json").write_text(figures, encoding="utf-8")


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--train", type=PATH, required=True, help="Training text.")
@click.option("--valid", type=PATH, required=True, help="Validation text.")
@click.option(
    "--work", type=PATH, default=Path(".train"), show_default=True, help="Where the state is kept."
)
@click.option(
    "--output",
    type=PATH,
    default=Path("demo-model"),
    show_default=True,
    help="Where the checkpoint goes.",
)
@click.option(
    "--steps", type=int, default=3600, show_default=True, help="Optimiser steps of 8192 tokens."
)
@click.option("--seed", type=int, default=0, show_default=True)
def main(
    train: Path,
    valid: Path,
    work: Path,
    output: Path,
    steps: int,
    seed: int,
) -> None:
    """Train, or resume training, and write the checkpoint."""
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    vocabulary = work / "tokenizer.json"
    if not vocabulary.exists():
        train_tokenizer(train.read_text(encoding="utf-8")).save(str(vocabulary))
    tokenizer = Tokenizer.from_file(str(vocabulary))
    stories = read_stories(train, tokenizer)
    held_out = torch.cat([plain for plain, _ in read_stories(valid, tokenizer)])
    model = Llama(CONFIG)
    initialise(model)
    add_dropout(model)
    pair = optimizers(model)
    schedule = Schedule(steps)
    state_file = work / "state.pt"
    first_step, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(pair, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"])
        first_step, seconds = state["step"], state["seconds"]
    full_rates = (MUON_RATE, ADAM_RATE)

    @torch.compile(dynamic=False)
    def loss_of(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = model(rows[:, :-1])
        return functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    tokens = sum(len(plain) for plain, _ in stories)
    print(f"{len(stories)} stories, {tokens} tokens; validation {len(held_out)} tokens", flush=True)
    for step in range(first_step, steps):
        begun = time.perf_counter()
        loss = loss_of(batch_at(stories, step, schedule.length(step)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(pair, full_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - begun
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} loss {float(loss):.3f} {seconds:.0f} s", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            print(f"step {step + 1} validation {validation_loss(model, held_out):.4f}", flush=True)
            state = {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in pair],
                "rng": torch.get_rng_state(),
                "step": step + 1,
                "seconds": seconds,
            }
            torch.save(state, work / "state.tmp")
            (work / "state.tmp").replace(state_file)
    rounded = Llama(CONFIG)
    rounded.load_state_dict(model.state_dict())
    rounded.to(torch.bfloat16).float()
    nats = validation_loss(rounded, held_out, rows=len(held_out))
    card: dict[str, object] = {
        "steps": steps,
        "tokens_seen": steps * BATCH_TOKENS,
        "training_tokens": tokens,
        "validation_tokens": len(held_out),
        "validation_nats_per_token": round(nats, 4),
        "training_s": round(seconds),
        "seed": seed,
        "schedule": asdict(schedule),
    }
    write_checkpoint(model, tokenizer, output, card)
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
