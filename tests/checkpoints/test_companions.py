"""A checkpoint's chat template is found in each place where its maker may have put it."""

from __future__ import annotations

import json

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.bundle.model_info import ModelInfo
from llama_export.checkpoints.companions import read_companions
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.checkpoints.hugging_face_files import wanted_files
from llama_export.errors import CheckpointError, ConfigError
from llama_export.sources.model_files import expected_files
from llama_export.tokenizer.chat.chat_format import templates_key

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


def templates(folder, key):
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": key}))
    return read_companions(folder).chat_templates


def test_several_templates_keep_their_names(tmp_path):
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    assert templates(tmp_path, named) == {"tool_use": "t", "default": TEMPLATE}
    assert templates(tmp_path, None) == templates(tmp_path, []) == {}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/tool_use.jinja").write_text("newer")
    assert templates(tmp_path, named) == {"tool_use": "newer", "default": TEMPLATE}
    (tmp_path / "tokenizer_config.json").unlink()
    assert read_companions(tmp_path).chat_templates == {"tool_use": "newer"}


def test_templates_may_stand_in_an_object(tmp_path):
    named = {"tool_use": "t", "default": TEMPLATE}
    assert templates(tmp_path, named) == named


def test_where_the_default_has_a_file_the_key_does_not_count(tmp_path):
    """As in transformers, which would write a dialog with tools by the file."""
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    named = [{"name": "tool_use", "template": "old"}, {"name": "default", "template": "old"}]
    assert templates(tmp_path, named) == {"default": TEMPLATE}


def test_of_several_templates_the_default_counts(tmp_path):
    folder = write_checkpoint(tmp_path / "tuned")
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    kept = template_in_a_bundle(folder)
    assert kept == templates_key({"default": TEMPLATE, "tool_use": "t"})["chat_template"]
    assert TEMPLATE in kept


@pytest.mark.parametrize(
    "key",
    [
        5,
        True,
        {"default": 5},
        [5],
        [{"name": 5, "template": "t"}],
        [{"name": "default"}],
    ],
)
def test_a_key_that_holds_no_template_is_refused_and_not_passed_over(tmp_path, key):
    with pytest.raises(ConfigError, match="chat_template must be a template"):
        templates(tmp_path, key)


def test_a_base_model_has_none(tmp_path):
    folder = write_checkpoint(tmp_path / "base")
    (folder / "tokenizer_config.json").write_text("{}")
    assert template_in_a_bundle(folder) is None


def test_a_pointer_is_no_template(tmp_path):
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    (folder / "rag.jinja").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:7\n")
    with pytest.raises(ConfigError, match=r"rag\.jinja is a git-lfs pointer"):
        read_companions(tmp_path)


def test_what_is_no_template_is_refused(tmp_path):
    path = tmp_path / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"chat_template\.jinja cannot be read"):
        read_companions(tmp_path)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ConfigError, match="longer than"):
        read_companions(tmp_path)


def test_a_link_to_elsewhere_is_refused(tmp_path):
    (tmp_path / "secret").write_text("mine")
    folder = write_checkpoint(tmp_path / "cloned")
    (folder / "chat_template.jinja").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="a link out of the checkpoint"):
        read_companions(folder)


def test_it_is_fetched_with_the_small_files():
    templates = {"chat_template.jinja", "additional_chat_templates/tool_use.jinja"}
    found = wanted_files({"config.json", "model.safetensors", "deep/er/x.jinja", *templates})
    assert {*found.small} == {"config.json", *templates}
