"""`optimum-cli export llama`: the command line of `llama-export`, for those who have optimum.

optimum-cli imports every file of this folder, whichever package it came with; there must be no
`__init__.py` on the way here. The options are read from llama-export's own command, so they are
the same; the output folder stands at the end, as in optimum's other exports. It knows no model,
and it imports nothing heavy: optimum-cli loads it for `--help` too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

# Given at the end here, and by `--output` there.
_OUTPUT = "output"


class _PassOn(argparse.Action):
    """Keep an option and its value as they were given, for llama-export to read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        """Append the option's whole name, and its value if it takes one."""
        value = [values] if isinstance(values, str) else []
        namespace.passed_on = [*getattr(namespace, "passed_on", []), self.option_strings[0], *value]


class LlamaExportCommand(BaseOptimumCLICommand):
    """`optimum-cli export llama --model demo --target onnx OUTPUT`."""

    COMMAND = CommandInfo(
        name="llama", help="Turn a Llama into a small quantised model, and prove that it is right."
    )

    @staticmethod
    def parse_args(parser: argparse.ArgumentParser) -> None:
        """Take llama-export's options."""
        from llama_export.cli.app import app

        for option in app.params:
            # argparse takes a per cent sign for a value to fill in.
            text = (getattr(option, "help", None) or "").replace("%", "%%")
            if option.name == _OUTPUT:
                continue
            if not getattr(option, "is_flag", False):
                parser.add_argument(*option.opts, action=_PassOn, help=text)
                continue
            parser.add_argument(*option.opts, action=_PassOn, nargs=0, help=text)
            if option.secondary_opts:
                contrary = f"The contrary of {option.opts[0]}."
                parser.add_argument(*option.secondary_opts, action=_PassOn, nargs=0, help=contrary)
        parser.add_argument(_OUTPUT, nargs="?", help="Gets one bundle a target (default: ./MODEL).")

    def run(self) -> None:
        """Run llama-export with what was given; it ends the process with its own exit code."""
        from llama_export.cli.main import main

        folder = ["--output", self.args.output] if self.args.output else []
        # Its messages and hints speak of it by this name.
        sys.argv = ["llama-export", *getattr(self.args, "passed_on", []), *folder]
        main()


REGISTER_COMMANDS = [(LlamaExportCommand, ExportCommand)]
