"""A checkpoint's chat template is found in each place where its maker may have put it."""

from __future__ import annotations

import json

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.bundle.manifest import ModelInfo
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.checkpoints.hugging_face_files import wanted_files
from llama_export.errors import CheckpointError, ConfigError
from llama_export.sources.chat_template import chat_template
from llama_export.sources.model_files import expected_files

TEMPLATE = "{% for message in messages %}### {{ message.role }}{% endfor %}"


def template_in_a_bundle(folder):
    info = ModelInfo("tiny", None, None, {})
    files = expected_files(info, None, open_checkpoint(folder))
    return json.loads(files.contents["tokenizer_config.json"]).get("chat_template")


def test_a_file_of_its_own_counts_before_the_key(tmp_path):
    folder = write_checkpoint(tmp_path / "tuned")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old"}))
    assert template_in_a_bundle(folder) == "old"
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    assert template_in_a_bundle(folder) == TEMPLATE
    (folder / "tokenizer_config.json").unlink()
    assert template_in_a_bundle(folder) == TEMPLATE


def test_of_several_templates_the_default_counts(tmp_path):
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    assert chat_template(tmp_path, {"chat_template": named}) == TEMPLATE
    assert chat_template(tmp_path, {"chat_template": named[:1]}) is None
    assert chat_template(tmp_path, {"chat_template": [5]}) is None
    assert chat_template(tmp_path, None) is None


def test_a_base_model_has_none(tmp_path):
    folder = write_checkpoint(tmp_path / "base")
    (folder / "tokenizer_config.json").write_text("{}")
    assert template_in_a_bundle(folder) is None


def test_what_is_no_template_is_refused(tmp_path):
    path = tmp_path / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"chat_template\.jinja cannot be read"):
        chat_template(tmp_path, None)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigError, match="longer than"):
        chat_template(tmp_path, None)


def test_a_link_to_elsewhere_is_refused(tmp_path):
    (tmp_path / "secret").write_text("mine")
    folder = write_checkpoint(tmp_path / "cloned")
    (folder / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="a link out of the checkpoint"):
        chat_template(folder, None)


def test_it_is_fetched_with_the_small_files():
    found = wanted_files({"config.json", "model.safetensors", "chat_template.jinja"})
    assert "chat_template.jinja" in found.small
