"""The command line: puts the verbs together.

Heavy modules are imported inside the verbs, so that `--help` answers at once. Results go to
stdout, progress and messages to stderr.
"""

from __future__ import annotations

from llama_export.cli.bench import BENCH
from llama_export.cli.chat.chat import CHAT
from llama_export.cli.classify import CLASSIFY
from llama_export.cli.compare import COMPARE
from llama_export.cli.evaluate import EVALUATE
from llama_export.cli.export import EXPORT_SECTIONS, export
from llama_export.cli.generate import GENERATE
from llama_export.cli.inspect import INSPECT
from llama_export.cli.list import LIST
from llama_export.cli.main import main
from llama_export.cli.pack import PACK
from llama_export.cli.program import NAME, Program
from llama_export.cli.push import PUSH
from llama_export.cli.push_options import PUSH_OPTIONS
from llama_export.cli.reading_options import READING_OPTIONS
from llama_export.cli.sensitivity import SENSITIVITY
from llama_export.cli.serve import SERVE
from llama_export.cli.target_options import TARGET_OPTIONS
from llama_export.cli.verify import VERIFY

__all__ = ["app", "main"]

app = Program(
    export,
    EXPORT_SECTIONS,
    (
        *(GENERATE, CHAT, SERVE, CLASSIFY, VERIFY, EVALUATE, BENCH),
        *(INSPECT, PACK, PUSH, COMPARE, SENSITIVITY, LIST),
    ),
    gathered={"target_options": TARGET_OPTIONS, **READING_OPTIONS, **PUSH_OPTIONS},
    examples=(
        f"{NAME} --target onnx --model 3.2-1B",
        f"{NAME} --target all --model demo --output bundles",
    ),
)


if __name__ == "__main__":
    main()
