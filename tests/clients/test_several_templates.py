"""A checkpoint with a template for tools beside its default one, in each stock client."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from artifacts.tiny import write_checkpoint
from transformers import AutoTokenizer

import environment
from clients import Clients, find_node
from llama_export.bundle.bundle import Bundle
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.generation.chat_model import read_chat_format
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import load_tokenizer

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

CLIENTS = Clients(environment.ROOT)
TEMPLATES = [
    {"name": "default", "template": "\n{{ bos_token }}plain: {{ messages[0].content }}\n\n"},
    {"name": "rag", "template": "{{ documents }}"},
    {"name": "tool_use", "template": "{{ tools | length }} tools: {{ messages[0].content }}  "},
]
MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
EXPECTED = ["\n<|begin_of_text|>plain: hi\n", "1 tools: hi  "]
NODE = """
import { AutoTokenizer, env } from '@huggingface/transformers';
const { root, messages, tools } = JSON.parse(process.argv[1]);
env.allowRemoteModels = false;
env.localModelPath = root;
const tokenizer = await AutoTokenizer.from_pretrained('onnx');
const texts = [{}, { tools }].map((more) =>
  tokenizer.apply_chat_template(messages, { tokenize: false, ...more }));
console.log(JSON.stringify(texts));
"""


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("templates")
    checkpoint = write_checkpoint(place / "checkpoint")
    settings = {"chat_template": TEMPLATES}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    asked = ExportRequest(str(checkpoint), ("onnx",), place, verify=False, max_context=64)
    return export_bundle(asked, Silent()).bundles[0].bundle.folder


def test_ours_and_transformers_choose_as_from_the_list(folder):
    bundle = Bundle.open(folder)
    form = read_chat_format(bundle, load_tokenizer(folder))
    dialogs = [Dialog([Message("user", "hi")], tools=tools) for tools in ([], TOOLS)]
    assert [form.render(dialog) for dialog in dialogs] == EXPECTED
    assert any(note.endswith("and not rag") for note in bundle.manifest.model.notes)
    fast = AutoTokenizer.from_pretrained(folder)
    found = [
        fast.apply_chat_template(MESSAGES, tools=tools, tokenize=False) for tools in (None, TOOLS)
    ]
    assert found == EXPECTED


def test_onnxruntime_genai_opens_it(folder):
    """Of a list it said: type must be string, but is array."""
    genai = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    stock = genai.Tokenizer(genai.Model(str(folder)))
    messages = json.dumps(MESSAGES)
    found = [
        stock.apply_chat_template(messages),
        stock.apply_chat_template(messages, tools=json.dumps(TOOLS)),
    ]
    assert found == EXPECTED


def test_transformers_js_chooses_too(folder):
    if not CLIENTS.has_transformers_js():
        pytest.skip("needs transformers.js: python3 tools/clients.py")
    asked = json.dumps({"root": str(folder.parent), "messages": MESSAGES, "tools": TOOLS})
    done = subprocess.run(
        [str(find_node("node")), "--input-type=module", "-e", NODE, asked],
        cwd=CLIENTS.js,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == EXPECTED
