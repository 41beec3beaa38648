"""What stands around the code agrees with it: versions, forms, workflows, addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_export.version import __version__

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which huggingface_hub brings")

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
# Addresses of standards; the project has none of its own yet.
KNOWN_ADDRESSES = {"https://semver.org/spec/v2.0.0.html"}

needs_github = pytest.mark.skipif(
    not GITHUB.is_dir(), reason="the source distribution has no .github"
)


def read_yaml(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version():
    citation = read_yaml(ROOT / "CITATION.cff")
    assert str(citation["version"]) == __version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # the format's duties
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{citation["license"]}"' in project
    assert f'name = "{citation["title"]}"' in project
    assert f'description = "{citation["abstract"].rstrip(".")}"' in project


def test_the_plugin_is_of_this_version():
    plugin = (ROOT / "integrations" / "optimum" / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "([^"]+)"', plugin, flags=re.MULTILINE).group(1) == __version__
    assert f'"llama-export=={__version__}"' in plugin


@pytest.mark.parametrize("name", ["SECURITY.md", "RELEASING.md", "CITATION.cff"])
def test_no_address_is_invented(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s)]+", text)) <= KNOWN_ADDRESSES
    assert not re.search(r"\w@\w", text)


@needs_github
@pytest.mark.parametrize("name", ["bug", "idea", "model"])
def test_a_form_can_be_filled_in(name):
    form = read_yaml(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    fields = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert len({entry["id"] for entry in fields}) == len(fields)
    assert all(entry["attributes"]["label"] for entry in fields)
    assert fields[0]["validations"]["required"] is True


@needs_github
def test_dependabot_looks_where_there_is_something():
    files = {"github-actions": ".github/workflows", "npm": "package.json", "pip": "pyproject.toml"}
    settings = read_yaml(GITHUB / "dependabot.yml")
    assert settings["version"] == 2
    for update in settings["updates"]:
        folder = ROOT / update["directory"].strip("/")
        assert (folder / files[update["package-ecosystem"]]).exists(), update


@needs_github
def test_workflows_pin_each_action_to_a_commit():
    for path in (GITHUB / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
        assert used
        for action in used:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action), action
