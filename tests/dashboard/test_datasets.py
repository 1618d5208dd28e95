"""The pages on datasets: versions, what became of the samples, where everything comes from."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import HERE, Opened, log_in
from playwright.sync_api import expect
from small_dataset import NUM_KEPT, NUM_LEFT_OUT, run_small, write_corpus, write_left_out
from starlette.applications import Starlette
from starlette.testclient import TestClient
from trainings import write_training

from mmcore.core.lineage import find_dataset
from mmcore.dashboard.index.build import update
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.recipe.contents import report_on


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A dataset of two increments, and a training on the first version."""
    directory = tmp_path_factory.mktemp("grown")
    root = directory / "root"
    corpus = write_left_out(write_corpus(directory / "corpus"))
    first = run_small(corpus, root)
    fingerprint = find_dataset(str(root), f"small/{first}").artifact.manifest.fingerprint
    write_training(root, dataset=fingerprint)
    second = run_small(write_corpus(corpus, first=100, num=10), root)
    update(str(root), SampleDatabase(str(root / "state")))
    return root, first, second


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_a_root_without_datasets_says_how_to_make_one(client: TestClient) -> None:
    for path in ("/datasets", "/samples"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "mm run" in answer.text


def test_the_list_names_every_version_and_how_it_grew(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, second = grown
    text = words_of(log_in(make_app(root)).get("/datasets").text)
    assert text.index(second[:12]) < text.index(first[:12])
    assert "+10" in text
    assert "first" in text


def test_the_funnel_shows_every_reason_with_its_count_and_adds_up(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, _ = grown
    text = words_of(log_in(make_app(root)).get(f"/datasets/small/{first}").text)
    for reason, num in {
        "image too small": 1,
        "exact duplicate": 2,
        "image undecodable": 1,
        "image format refused": 1,
    }.items():
        assert re.search(rf"{reason} (dropped|quarantined)[a-z ]* {num}\b", text), reason
    total = NUM_KEPT + NUM_LEFT_OUT
    assert re.search(rf"ingest {total}", text)
    assert f"Samples kept {NUM_KEPT} of {total} found" in text
    assert f"Left out {NUM_LEFT_OUT}" in text


def test_a_version_shows_its_shards_its_increments_and_who_learned_from_it(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, second = grown
    client = log_in(make_app(root))
    page = client.get(f"/datasets/small/{second}").text
    manifest = find_dataset(str(root), f"small/{second}").artifact.manifest
    for file in manifest.files:
        if file.path.endswith(".tar"):
            assert file.path in page
            assert file.sha256 in page
    assert "Increments" in page
    assert first[:8] in page
    assert "/training/small/" in client.get(f"/datasets/small/{first}").text


def test_the_data_report_is_linked_once_it_is_there_and_served_in_a_sandbox(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, second = grown
    client = log_in(make_app(root))
    page = f"/datasets/small/{first}"
    assert "Data report" not in client.get(page).text
    missing = client.get(f"{page}/report")
    assert missing.status_code == 404
    assert f"mm report small/{first}" in missing.text
    report_on(str(root), find_dataset(str(root), f"small/{first}"))
    assert f'href="{page}/report"' in client.get(page).text
    assert "Data report" not in client.get(f"/datasets/small/{second}").text
    answer = client.get(f"{page}/report")
    assert answer.status_code == 200
    assert "what is in it, and what is not" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'; img-src data:; media-src data:")


def test_the_data_report_is_for_those_who_have_logged_in(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, _ = grown
    stranger = TestClient(make_app(root), base_url=HERE, follow_redirects=False)
    assert stranger.get(f"/datasets/small/{first}/report").status_code in (303, 401, 403)


def test_the_card_is_shown_as_text(
    grown: tuple[Path, str, str], make_app: Callable[..., Starlette]
) -> None:
    root, first, _ = grown
    page = log_in(make_app(root)).get(f"/datasets/small/{first}").text
    assert "pretty_name: &#34;small&#34;" in page


@pytest.mark.parametrize(
    "path", ["/datasets/nobody", "/datasets/small/0123", "/datasets/a/b/samples"]
)
def test_what_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("viewport", [(1280, 900), (390, 844)])
def test_a_browser_shows_the_dataset_on_a_desk_and_on_a_phone(
    grown: tuple[Path, str, str],
    browser_page: Callable[..., Opened],
    viewport: tuple[int, int],
) -> None:
    root, first, second = grown
    opened = browser_page(root, viewport=viewport)
    opened.goto("/datasets")
    opened.page.get_by_role("link", name=second[:12]).click()
    expect(opened.page.get_by_role("heading", name="From found to kept")).to_be_visible()
    for path in ("/datasets", f"/datasets/small/{second}", "/datasets/small"):
        opened.goto(path)
        body = opened.page.locator("body")
        assert body.evaluate("body => body.scrollWidth <= innerWidth"), path
    opened.goto(f"/datasets/small/{first}")
    opened.page.get_by_role("link", name="exact duplicate").click()
    expect(opened.page.locator(".sample")).to_have_count(2)
