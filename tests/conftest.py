"""What several test files share: shared data, vocabularies, the command line in this process."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from artifacts.dialogs import DEMO_TEMPLATE
from filelock import FileLock

from llama_export.cli import app
from llama_export.exporting.recipe_name import DEFAULT_QUALITY
from llama_export.tokenizer.tiktoken_tokenizer import TiktokenTokenizer
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from artifacts.small_bundle import FakeMachine

# An export is calibrated for a minute unless told otherwise; what a test exports is not, unless it
# asks. tests/contract/test_calibrated.py holds the default itself.
DEFAULT_QUALITY.clear()

# Not every token is the join of two others: " king" is found only as a whole piece.
SMALL_TOKENS = (
    *(bytes([byte]) for byte in range(256)),
    *b"th|he|in|the| the|ing|er|aa|aaaa|  |    |\n\n|us|user|ll|ell|Hell|Hello| W|or".split(b"|"),
    *b" king|\xf0\x9f|\xf0\x9f\x98|\xe4\xb8|\xe4\xb8\xad|12|123|'s|ab|ba|aba".split(b"|"),
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder `shared/data` beside the repository, or skip."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def real_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with a real chat model's bundles, which takes minutes: for slow tests."""
    for toolkit in ("onnx", "executorch", "coremltools"):
        pytest.importorskip(toolkit, reason="needs the extras of all targets")
    from artifacts.real_model import export_real_model

    # Where several processes test, the first that needs them makes them for all.
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with FileLock(folder / "real.lock"):
        made = folder / "real" / "smollm2"
        return made if made.is_dir() else export_real_model(folder / "real")


@pytest.fixture(scope="session")
def small_tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a `tokenizer.model` of a few hundred ranks."""
    path = tmp_path_factory.mktemp("small") / "tokenizer.model"
    lines = [
        f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(SMALL_TOKENS)
    ]
    path.write_text("".join(lines), encoding="ascii")
    return path


@pytest.fixture(scope="session")
def small(small_tokenizer_model) -> TiktokenTokenizer:
    """Return the small vocabulary's tokenizer."""
    return TiktokenTokenizer.from_bytes(small_tokenizer_model.read_bytes())


@pytest.fixture(scope="session")
def small_folder(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the small vocabulary as Hugging Face keeps it."""
    return _hugging_face_folder(small, tmp_path_factory.mktemp("small-hf"))


@pytest.fixture(scope="session")
def llama3_file(shared_data) -> Path:
    """Return Meta's `tokenizer.model`, or skip."""
    return shared_data / "llama3" / "tokenizer.model"


@pytest.fixture(scope="session")
def llama3(llama3_file) -> TiktokenTokenizer:
    """Return Llama 3's tokenizer, or skip."""
    return TiktokenTokenizer.from_bytes(llama3_file.read_bytes())


@pytest.fixture(scope="session")
def llama3_folder(llama3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with Llama 3's vocabulary as Hugging Face keeps it, or skip."""
    return _hugging_face_folder(llama3, tmp_path_factory.mktemp("llama3-hf"))


@pytest.fixture(scope="session")
def llama3_from_json(llama3_folder) -> Tokenizer:
    """Return Llama 3's tokenizer, loaded from the written `tokenizer.json`, or skip."""
    return load_tokenizer(llama3_folder)


def _hugging_face_folder(tokenizer: TiktokenTokenizer, folder: Path) -> Path:
    (folder / "tokenizer.json").write_bytes(tokenizer.files()["tokenizer.json"])
    config = json.dumps(tokenizer.config_keys() | {"chat_template": DEMO_TEMPLATE})
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests' commands remember out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_EXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_process_state() -> Iterator[None]:
    """Undo what a command does to its process."""
    hooks = threading.excepthook, sys.unraisablehook
    yield
    threading.excepthook, sys.unraisablehook = hooks
    logging.disable(logging.NOTSET)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_process_state: None
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `llama-export` and gives its exit code, stdout and stderr."""

    def call(
        *arguments: object, stdin: bytes | io.StringIO | None = None, columns: int = 80
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llama-export", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        if stdin is not None:
            piped = io.TextIOWrapper(io.BytesIO(stdin)) if isinstance(stdin, bytes) else stdin
            monkeypatch.setattr(sys, "stdin", piped)
        with pytest.raises(SystemExit) as stopped:
            app.main()
        output = capsys.readouterr()
        return stopped.value.code or 0, output.out, output.err

    return call


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch use one thread: products this small take longer to hand out than to compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Fail where something is fetched to describe a model."""

    def fail(*_arguments, **_options):
        pytest.fail("a known name needs no network")

    monkeypatch.setattr("llama_export.sources.catalogue.fetch", fail)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """Return a hub cache that holds nothing, on the disk of the outputs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def plenty(monkeypatch) -> FakeMachine:
    """Put a machine with room for everything in place of this one."""
    from artifacts.small_bundle import FakeMachine

    machine = FakeMachine()
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    return machine
