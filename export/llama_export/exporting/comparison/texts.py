"""Cut the texts of a comparison into windows, and describe what was read.

Each window is as long as what `verify` reads of a model of that size, and the first one has the
very same tokens: so a comparison of one window has the figures of `verify`. A text is not repeated.
It knows texts and token counts; it runs nothing.
"""

from __future__ import annotations

from llama_export.errors import PromptError
from llama_export.exporting.comparison.figures import ReadText
from llama_export.exporting.comparison.limits import FEWEST_POSITIONS
from llama_export.exporting.comparison.request import NamedText
from llama_export.llama.config import LlamaConfig
from llama_export.verification.measure.in_blocks import Doubles, block_count, exponential
from llama_export.verification.measure.yardstick import TextWindows, block_positions, weighted_mean
from llama_export.verification.samples import TextEncoder, plan_budget


def cut_text(
    text: NamedText,
    encoder: TextEncoder,
    config: LlamaConfig,
    positions: int,
    most_window: int | None = None,
) -> TextWindows:
    """Cut a text into windows.

    Args:
        text: the text.
        encoder: tokenizer.
        config: shape of the model.
        positions: most positions to read.
        most_window: most positions of a window; None: as the model's context has.

    Raises:
        PromptError: it has too few tokens.
    """
    token_ids, prefix = encoder.encode(text.content), encoder.prefix_ids
    available = len(token_ids) - 1 + len(prefix)
    longest = min(most_window or config.longest_context, config.longest_context)
    window = plan_budget(config, longest, quick=False).positions
    window = min(window, positions, available)
    if window < min(FEWEST_POSITIONS, longest):
        message = (
            f"--text: {text.name}: expected at least {min(FEWEST_POSITIONS, longest)} positions, "
            f"found {min(positions, available)}"
        )
        raise PromptError(message, "give a page or more of the text that the model is for")
    return TextWindows.cut(
        text.name,
        token_ids,
        positions,
        window=window,
        prefix_ids=prefix,
        blocks=block_count(window),
    )


def describe_text(text: NamedText, windows: TextWindows, nats: Doubles) -> ReadText:
    """Describe a text that was read.

    Args:
        text: the text.
        windows: what was read of it.
        nats: loss of the reference on each block, float64 `[N]`.
    """
    return ReadText(
        name=text.name,
        sha256=text.sha256,
        positions=windows.positions,
        window=windows.ids.shape[1],
        blocks=len(nats),
        perplexity=exponential(weighted_mean(nats, block_positions(windows))),
    )
