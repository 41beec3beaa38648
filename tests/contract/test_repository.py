"""What stands around the code agrees with it: versions, forms, workflows, addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import release
from llama_export.version import __version__

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which huggingface_hub brings")

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
# Addresses of standards, and what stands for an address that is not known yet.
KNOWN_ADDRESSES = {"https://semver.org/spec/v2.0.0.html", "https://github.com/OWNER/NAME"}

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


def own_addresses() -> set[str]:
    """Return the addresses that `tools/release.py address` has written; none before that."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return set(re.findall(r'^[A-Z]\w+ = "(https://[^"]+)"$', project, flags=re.MULTILINE))


def test_every_file_has_the_same_addresses():
    plugin = (ROOT / release.PLUGIN).read_text(encoding="utf-8")
    citation = read_yaml(ROOT / "CITATION.cff")
    repositories = {url for url in own_addresses() if url.count("/") == 4 and "github.com" in url}
    if not repositories:
        assert "[project.urls]" not in plugin
        assert "repository-code" not in citation
        return
    (repository,) = repositories
    addresses = release.addresses_of(repository)
    assert addresses.table in plugin
    assert addresses.table in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (citation["repository-code"], citation["url"]) == (repository, addresses.site)


@pytest.mark.parametrize("name", ["SECURITY.md", "RELEASING.md", "CITATION.cff"])
def test_no_address_is_invented(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s)`]+", text)) <= KNOWN_ADDRESSES | own_addresses()
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
    files = {
        "github-actions": (".github/workflows",),
        "npm": ("package.json",),
        "pip": ("pyproject.toml", "release-requirements.txt"),
    }
    settings = read_yaml(GITHUB / "dependabot.yml")
    assert settings["version"] == 2
    for update in settings["updates"]:
        folder = ROOT / update["directory"].strip("/")
        found = files[update["package-ecosystem"]]
        assert any((folder / name).exists() for name in found), update


@needs_github
def test_workflows_pin_each_action_to_a_commit():
    for path in (GITHUB / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
        assert used
        for action in used:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action), action


@needs_github
def test_no_job_may_do_more_than_it_says():
    allowed = {
        ("docs", "deploy"): {"pages", "id-token"},
        ("release", "attest"): {"id-token", "attestations"},
        ("release", "publish"): {"id-token"},
        ("release", "publish-optimum"): {"id-token"},
        ("release", "notes"): {"contents"},
    }
    found = {}
    for path in (GITHUB / "workflows").glob("*.yml"):
        workflow = read_yaml(path)
        assert workflow["permissions"] in ({}, {"contents": "read"}), path
        for name, job in workflow["jobs"].items():
            writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
            if writes:
                found[path.stem, name] = writes
            for step in job["steps"]:
                if "actions/checkout" in step.get("uses", ""):
                    assert step["with"]["persist-credentials"] is False, (path, name)
    assert found == allowed


@needs_github
def test_the_page_of_releases_has_each_job_of_the_workflow_in_its_order():
    page = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    jobs = read_yaml(GITHUB / "workflows" / "release.yml")["jobs"]
    assert re.findall(r"^\| `([\w-]+)` \|", page, flags=re.MULTILINE) == list(jobs)
    waits = [job.get("needs") for job in jobs.values()]
    assert waits == [None, *list(jobs)[:-1]]  # one after another, so nothing is published unchecked
    assert {name for name, job in jobs.items() if "environment" in job} == {
        "publish",
        "publish-optimum",
    }
