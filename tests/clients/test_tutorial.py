"""The app of docs/tutorial.md, as it stands there, in Chromium: it answers with the real model."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from artifacts.chromium import ask_page

import environment
from clients import Clients, MissingClientError, find_chromium

pytestmark = [pytest.mark.onnx, pytest.mark.slow]

PAGE = environment.ROOT / "docs" / "tutorial.md"
# What a reader does: wait until it is ready, press the button, read the answer to its full stop.
READER = """
<script type="module">
  const send = (body) => fetch('/answer', { method: 'POST', body: JSON.stringify(body) });
  const answer = document.querySelector('#answer');
  const until = async (holds) => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 100));
  };
  addEventListener('error', (event) => send({ error: event.message }));
  addEventListener('unhandledrejection', (event) => send({ error: String(event.reason) }));
  await until(() => answer.textContent === 'Ready.');
  document.querySelector('button').click();
  await until(() => answer.textContent !== 'Ready.' && answer.textContent.endsWith('.'));
  await send({ text: answer.textContent });
</script>
"""


def missing(what: str) -> None:
    """Skip, or fail where every client must be there."""
    if os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1":
        pytest.fail(what)
    pytest.skip(what)


def test_the_app_of_the_tutorial_answers(real_bundles: Path, tmp_path: Path):
    clients = Clients(environment.ROOT)
    if not clients.has_transformers_js():
        missing("transformers.js is missing: python3 tools/clients.py transformers.js")
    try:
        chromium = find_chromium()
    except MissingClientError as error:
        missing(str(error))
    tutorial = PAGE.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```html\n(.*?)^```", tutorial, flags=re.MULTILINE | re.DOTALL)
    page = tmp_path / "page.html"
    page.write_text(shown + READER, encoding="utf-8")
    served = {
        "/page.html": page,
        "/node_modules/": clients.js / "node_modules",
        "/models/smollm2/": real_bundles / "onnx",
    }
    answer = ask_page(chromium, served, None)
    assert "Paris" in answer.get("text", ""), answer
