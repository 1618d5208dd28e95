import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_receiver import receiver
from prefect_server import AUTH, PrefectServer
from toy import write_corpus

__all__ = ["receiver"]
RECIPE = """
name: texts
source: {{path: {corpus}, layout: {{use: folder}}}}
clean: {{repair_caption: }}
split: {{together: [text]}}
encode: {{encode_text: }}
tokenizer: {{vocab_size: 100}}
retrain: {{quiet_seconds: 0, min_new_samples: 3}}
"""
RunFlow = Callable[..., Any]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A corpus of texts, its recipe and a deployment file, in a directory."""
    corpus = write_corpus(tmp_path / "corpus", num_texts=40)
    (corpus / "broken.txt").unlink()
    (tmp_path / "texts.yaml").write_text(RECIPE.format(corpus=corpus))
    (tmp_path / "d.yaml").write_text(f"name: texts\nrecipe: {tmp_path}/texts.yaml\n")
    return tmp_path


@pytest.fixture
def on_server(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The shared server, as the one that flows in this process talk to."""
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server.url, PREFECT_API_AUTH_STRING: AUTH}):
        yield prefect_server
        asyncio.run(APILogHandler.aflush())  # while there is a server to take it


@pytest.fixture
def run_flow(project: Path, on_server: PrefectServer) -> RunFlow:
    """Run a flow on the recipe in this process, and return the state that it ends in."""

    def run(flow: Any, **parameters: Any) -> Any:
        given = {
            "recipe": str(project / "texts.yaml"),
            "root": str(project / "root"),
            "executor": "local",
            "workers": 1,
            **parameters,
        }
        return asyncio.run(flow(**given, return_state=True))

    return run
