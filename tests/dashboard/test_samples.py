"""The gallery and the story of a sample, as a person uses them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import Opened, log_in
from many_samples import write_many_samples
from playwright.sync_api import expect
from small_dataset import (
    NUM_KEPT,
    NUM_LEFT_OUT,
    SCRIPT,
    run_small,
    write_clips,
    write_corpus,
    write_left_out,
)
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.dashboard.index import build
from mmcore.dashboard.index.build import update
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.dashboard.pages.samples import PAGE_SIZE


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("small")
    root = directory / "root"
    version = run_small(write_left_out(write_corpus(directory / "corpus")), root)
    update(str(root), SampleDatabase(str(root / "state")))
    return root, f"/datasets/small/{version}/samples"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("many")
    version = write_many_samples(root, num_samples=500)
    update(str(root), SampleDatabase(str(root / "state")))
    return root, f"/datasets/many/{version}/samples"


def keys_of(html: str) -> list[str]:
    return re.findall(r'class="sample-link" href="[^"]*" aria-label="([^"]*)"', html)


def next_of(html: str) -> str | None:
    found = re.search(r'rel="next" href="([^"]*)"', html)
    return found and found.group(1).replace("&amp;", "&")


def test_the_gallery_goes_on_page_by_page_without_a_script(
    many: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, address = many
    client = log_in(make_app(root))
    seen: list[str] = []
    here: str | None = f"{address}?status=kept"
    while here:
        page = client.get(here).text
        seen += keys_of(page)
        here = next_of(page)
    assert len(seen) == len(set(seen)) == 450


def test_the_page_before_is_the_page_that_one_came_from(
    many: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, address = many
    client = log_in(make_app(root))
    first = client.get(address).text
    second = client.get(next_of(first) or "").text
    back = re.search(r'rel="prev" href="([^"]*)"', second)
    assert back
    assert keys_of(client.get(back.group(1).replace("&amp;", "&")).text) == keys_of(first)


def test_a_caption_that_holds_a_script_is_text_everywhere(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root)
    for path in (f"{address}?q=pwned", f"{address}/birds__sample-003"):
        opened.goto(path)
        expect(opened.page.get_by_text(SCRIPT).first).to_be_visible()
        expect(opened.page).not_to_have_title("pwned")
        expect(opened.page.locator("img[src=x]")).to_have_count(0)


def test_an_address_that_holds_a_script_is_text_as_well(
    small: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, address = small
    client = log_in(make_app(root))
    for name in ("q", "label", "twin", "status", "reason"):
        page = client.get(address, params={name: SCRIPT, "after": "x", "before": "-1"})
        assert page.status_code == 200
        assert "<script>document.title" not in page.text
        assert "<img src=x" not in page.text


def test_pictures_and_sound_load(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root)
    opened.goto(f"{address}?status=kept")
    cards = opened.page.locator(".sample")
    expect(cards).to_have_count(NUM_KEPT)
    picture = cards.first.locator("img.picture")
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") == 48
    sound = cards.first.locator("audio")
    sound.evaluate(
        "sound => new Promise((done, failed) => { sound.onloadedmetadata = done;"
        " sound.onerror = () => failed(sound.error); sound.load(); sound.preload = 'auto'; })"
    )
    assert 0.2 < sound.evaluate("sound => sound.duration") < 0.3


def test_a_video_plays_in_the_gallery(tmp_path: Path, browser_page: Callable[..., Opened]) -> None:
    root = tmp_path / "root"
    version = run_small(write_clips(tmp_path / "clips"), root, name="clips", has_video=True)
    update(str(root), SampleDatabase(str(root / "state")))
    opened = browser_page(root)
    opened.goto(f"/datasets/clips/{version}/samples")
    video = opened.page.locator("video").first
    expect(video).to_be_visible()
    video.evaluate(
        "video => video.readyState > 0 || new Promise(done => { video.onloadedmetadata = done; })"
    )
    assert video.evaluate("video => video.videoWidth") == 64


def test_searching_and_filtering_change_the_gallery_in_place(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root)
    page = opened.page
    opened.goto(address)
    expect(page.locator(".sample")).to_have_count(NUM_KEPT + NUM_LEFT_OUT)
    page.keyboard.press("/")
    page.keyboard.type("number 7")
    expect(page.locator(".sample")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"q=number(\+|%20)7"))
    page.get_by_label("Search captions and metadata").fill("")
    expect(page.locator(".sample")).to_have_count(NUM_KEPT + NUM_LEFT_OUT)
    page.get_by_label("Any class").select_option("boats")
    expect(page.locator(".sample")).to_have_count(NUM_KEPT // 2)
    page.locator("[data-status=dropped]").click()
    expect(page.locator(".card .empty-title")).to_have_text("No sample fits")
    page.get_by_role("link", name="Show all samples").click()
    opened.wait_until_ready()
    page.get_by_label("Any reason").select_option("exact_duplicate")
    expect(page.locator(".sample")).to_have_count(2)
    page.reload()
    expect(page.locator(".sample")).to_have_count(2)


def test_a_duplicate_is_shown_beside_its_twin_with_the_reason(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root)
    opened.goto(f"{address}?duplicate=lost")
    card = opened.page.locator(".sample").first
    expect(card.locator(".twin img")).to_have_count(2)
    expect(card).to_contain_text("exact duplicate")
    expect(card).to_contain_text("same image as birds__sample-001")
    card.locator(".sample-link").click()
    opened.wait_until_ready()
    opened.page.locator(".twins").get_by_role("link", name="birds__sample-001").click()
    expect(opened.page.get_by_text("1 duplicate of it was dropped")).to_be_visible()


def test_the_gallery_works_by_keyboard_alone(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root)
    page = opened.page
    opened.goto(address)
    names = [one.get_attribute("aria-label") for one in page.locator(".sample-link").all()]
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    expect(page.locator(".sample-link:focus")).to_have_attribute("aria-label", names[1] or "")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(names[1] or "")
    opened.wait_until_ready()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", level=1)).to_have_text(names[2] or "")


def test_a_story_tells_where_from_what_was_measured_and_where_it_lies(
    small: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, address = small
    page = log_in(make_app(root)).get(f"{address}/birds__sample-007").text
    for wanted in (
        "source:birds/sample-007.png",
        "CC0-1.0",
        "shard:train/",
        "image width",
        "split group",
        "No model has seen it yet",
    ):
        assert wanted in page, wanted


def test_a_sample_that_is_not_there_is_not_found(
    small: tuple[Path, str], make_app: Callable[..., Starlette]
) -> None:
    root, address = small
    answer = log_in(make_app(root)).get(f"{address}/birds__nobody")
    assert answer.status_code == 404
    assert "birds__nobody" in answer.text


def test_the_gallery_fits_a_phone(
    small: tuple[Path, str], browser_page: Callable[..., Opened]
) -> None:
    root, address = small
    opened = browser_page(root, viewport=(390, 844), dark=True)
    for path in (address, f"{address}?duplicate=lost", f"{address}/birds__twin-of-1"):
        opened.goto(path)
        assert opened.page.locator("body").evaluate("body => body.scrollWidth <= innerWidth"), path


def test_samples_can_be_looked_at_while_the_rest_is_indexed(
    tmp_path: Path, make_app: Callable[..., Starlette], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write_many_samples(tmp_path, num_samples=1000)
    monkeypatch.setattr(build, "_BATCH", 400)
    real = build._Writer.add

    def stop_after_one(self: build._Writer, batch: list) -> None:
        real(self, batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(build._Writer, "add", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        update(str(tmp_path), SampleDatabase(str(tmp_path / "state")))
    app = make_app(tmp_path)
    app.state.samples.close()  # nobody goes on with it
    app.state.samples.keep_current = lambda: None
    client = log_in(app)
    page = client.get(f"/datasets/many/{version}/samples").text
    assert "Indexing 400 of 1\u202f000 samples" in page
    assert len(keys_of(page)) == PAGE_SIZE
    assert "Indexing 400" in client.get(f"/datasets/many/{version}/indexing").text


def test_a_dashboard_indexes_a_new_dataset_by_itself(
    tmp_path: Path, browser_page: Callable[..., Opened]
) -> None:
    root = tmp_path / "root"
    (root / "state").mkdir(parents=True)
    opened = browser_page(root)
    opened.goto("/samples")
    expect(opened.page.get_by_text("No samples yet")).to_be_visible()
    version = write_many_samples(root, num_samples=300)
    for _ in range(60):
        opened.goto("/samples")
        if version in opened.page.url:
            break
        opened.page.wait_for_timeout(500)
    expect(opened.page.locator(".sample").first).to_be_visible()


def test_a_source_that_is_gone_leaves_a_note_and_no_broken_picture(
    tmp_path: Path, make_app: Callable[..., Starlette]
) -> None:
    corpus = write_left_out(write_corpus(tmp_path / "corpus"))
    root = tmp_path / "root"
    version = run_small(corpus, root)
    for record in (root / "runs").rglob("run.json"):
        record.unlink()
    update(str(root), SampleDatabase(str(root / "state")))
    client: TestClient = log_in(make_app(root))
    page = client.get(f"/datasets/small/{version}/samples?status=dropped").text
    assert "The source is not at hand" in page
    assert client.get(f"/media/small/{version}/birds__tiny/png").status_code == 404
