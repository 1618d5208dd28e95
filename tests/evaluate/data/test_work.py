"""The data report of real datasets: what is on the page is what the steps wrote."""

import html
import json
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_dataset import (
    NUM_KEPT,
    NUM_LEFT_OUT,
    SCRIPT,
    run_small,
    write_clips,
    write_corpus,
    write_left_out,
)

from mmcore.core.diff import diff
from mmcore.core.forget import ask, forget
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import DatasetVersion, find_dataset, increments
from mmcore.core.manifest import verify_artifact
from mmcore.core.purge import purge
from mmcore.core.rows import read_rows, rows_files
from mmcore.core.runner import ignore_event
from mmcore.core.step import Artifact
from mmcore.evaluate.data import contents, examples, losses, work
from mmcore.evaluate.data.page import MAX_LABELS, page
from mmcore.evaluate.data.words import reason_words
from mmcore.evaluate.data.work import ReportConfig, find_report, make_report, tell
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import run_recipe

ALL = ReportConfig(num_kept=100, num_lost=100)


class Small:
    """A dataset of two increments; what the second one found is among the samples of the first."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.corpus = write_left_out(write_corpus(directory / "corpus"))
        self.first = f"small/{run_small(self.corpus, self.root)}"
        write_corpus(self.corpus, first=100, num=10)
        (self.corpus / "boats" / "sample-002.txt").write_text("Another caption.")
        (self.corpus / "boats" / "sample-004.png").unlink()
        (self.corpus / "boats" / "sample-004.txt").unlink()
        (self.corpus / "boats" / "sample-004.wav").unlink()
        self.second = f"small/{run_small(self.corpus, self.root)}"

    def version(self, name: str) -> DatasetVersion:
        return find_dataset(str(self.root), name)

    def report(self, name: str, config: ReportConfig = ALL) -> Artifact:
        version = self.version(name)
        return make_report(str(self.root), version, source_url=str(self.corpus), config=config)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own(small: Small, tmp_path: Path) -> str:
    """A copy of the root, to change."""
    return str(shutil.copytree(small.root, tmp_path / "root"))


def html_of(report: Artifact) -> str:
    return Path(report.url, "report.html").read_text()


def facts_of(report: Artifact) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(report.url, "report.json").read_text())
    return facts


class Addresses(HTMLParser):
    """Everything that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs), attrs


def test_the_page_needs_nothing_else_and_runs_nothing(small: Small) -> None:
    text = html_of(small.report(small.first))
    seen = Addresses()
    seen.feed(text)
    assert seen.tags["img"] == seen.tags["audio"] > NUM_KEPT
    assert all(
        one.startswith(("data:image/webp", "data:audio/flac", "#")) for one in seen.addresses
    )
    assert seen.tags["script"] == seen.tags["link"] == seen.tags["iframe"] == 0
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_caption_that_would_like_to_be_run_is_text(small: Small) -> None:
    text = html_of(small.report(small.first))
    assert SCRIPT not in text
    assert html.escape(SCRIPT, quote=False).split("&gt;")[0] in text


def test_what_is_broken_is_named_and_none_of_it_is_shown(small: Small) -> None:
    text = html_of(small.report(small.first))
    assert "birds__drawing" in text
    assert "birds__broken" in text
    assert text.count("set aside: nothing of it is decoded") == 2
    assert "SVG is not drawn" in text
    assert "A drawing." not in text


def test_counts_are_those_of_the_manifests_and_of_the_rows(small: Small) -> None:
    facts = facts_of(small.report(small.second))
    version = small.version(small.second)
    chains = increments(str(small.root), version)
    for level in facts["levels"]:
        counts = [chain[level["step"]].manifest.counts for chain in chains]
        assert level["found"] == sum(one.found for one in counts)
        assert level["kept"] == sum(one.kept for one in counts)
    for status in ("dropped", "quarantined"):
        expected: Counter[tuple[str, str]] = Counter()
        for chain in chains:
            for step, artifact in chain.items():
                for reason, num in getattr(artifact.manifest.counts, status).items():
                    expected[step, reason] += num
        told = Counter(
            {
                (one["step"], one["reason"]): one["num"]
                for one in facts["losses"]
                if one["status"] == status
            }
        )
        assert told == expected
    assert facts["num_kept"] == sum(version.artifact.manifest.facts["num_samples"].values())  # type: ignore[union-attr]
    assert facts["by_split"] == version.artifact.manifest.facts["num_samples"]


def test_every_reason_in_the_rows_is_on_the_page_with_its_samples_and_in_words(
    small: Small,
) -> None:
    report = small.report(small.first)
    text, shown = html_of(report), facts_of(report)["examples"]
    groups = {**shown["lost"], **shown["pairs"]}
    (chain,) = increments(str(small.root), small.version(small.first))
    lost = [
        (step, row)
        for step, artifact in chain.items()
        for row in read_rows(artifact)
        if row.status != "kept"
    ]
    assert len(lost) == NUM_LEFT_OUT
    for step, row in lost:
        assert reason_words(row.reason) in text
        assert row.rule in text
        assert row.sample.key in str(groups[f"{step} {row.status} {row.reason}"])
        assert html.escape(row.detail, quote=False) in text


def test_scores_of_all_samples_are_told_with_the_limit_that_refused_some(small: Small) -> None:
    width = facts_of(small.report(small.first))["scores"]["image_width"]
    assert width["kept"]["num"] == NUM_KEPT
    assert (width["refused"]["num"], width["refused"]["p50"]) == (1, 8.0)
    assert width["otherwise"]["num"] == 2
    assert width["limits"] == [{"field": "min_side", "rule": "min_side", "value": 16.0}]
    assert "at least <b>16</b>" in html_of(small.report(small.first))


def test_duplicates_stand_beside_those_that_outlived_them(small: Small) -> None:
    report = small.report(small.first)
    (pairs,) = facts_of(report)["examples"]["pairs"].values()
    assert sorted(map(sorted, pairs)) == [
        ["birds__sample-001", "birds__twin-of-1"],
        ["birds__sample-005", "birds__twin-of-5"],
    ]
    text = html_of(report)
    assert text.count('class="mark stays"') == text.count('class="mark goes"') == 2
    assert "same image as" in text


def test_the_first_version_has_nothing_to_be_compared_with(small: Small) -> None:
    report = small.report(small.first)
    assert facts_of(report)["drift"] is None
    assert "there is nothing to compare it with" in html_of(report)


def test_a_version_is_compared_with_the_one_it_builds_on(small: Small) -> None:
    facts = facts_of(small.report(small.second))
    expected: Any = diff(small.version(small.first), small.version(small.second))
    drift = facts["drift"]
    assert facts["before"] == small.first
    assert drift["added"] == len(expected["added"]) == 10
    assert drift["removed"] == len(expected["removed"]) == 1
    assert drift["changed"] == len(expected["changed"]) == 1
    assert drift["moved"] == len(expected["moved"]) == 0
    for name, one in expected["scores"].items():
        assert drift["scores"][name]["ks"] == pytest.approx(one["ks"])
        assert drift["scores"][name]["after"]["mean"] == pytest.approx(one["after"]["mean"])


def test_any_two_versions_can_be_compared(small: Small) -> None:
    before, after = small.version(small.second), small.version(small.first)
    report = make_report(str(small.root), after, source_url=str(small.corpus), against=before)
    assert facts_of(report)["drift"]["removed"] == 10
    assert report.url != make_report(str(small.root), after, source_url=None).url


def test_a_report_is_made_once_and_is_whole(small: Small) -> None:
    report = small.report(small.first)
    assert verify_artifact(report.url, report.manifest) == []
    before = Path(report.url, "report.html").stat().st_mtime_ns
    again = small.report(small.first)
    assert again.url == report.url
    assert Path(report.url, "report.html").stat().st_mtime_ns == before
    assert find_report(str(small.root), small.version(small.first), config=ALL) == report


def test_examples_are_few_however_many_samples_there_are(small: Small) -> None:
    few = ReportConfig(num_kept=2, num_lost=1)
    shown = facts_of(small.report(small.first, few))["examples"]
    assert [len(keys) for keys in shown["kept"].values()] == [2, 2, 2]
    assert all(len(keys) == 1 for keys in [*shown["lost"].values(), *shown["pairs"].values()])
    assert len(shown["lost"]) == 3


def test_pictures_and_sounds_take_so_much_room_and_no_more(
    own: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MAX_MEDIA_BYTES", 40_000)
    version = find_dataset(own, small.first)
    told = tell(own, version, None, source_url=str(small.corpus), config=ReportConfig())
    cards = told.galleries.cards()
    sizes = [len(card.shown.picture) + len(card.shown.sound) for card in cards]
    assert 0 < sum(sizes) <= 40_000
    assert any(examples.FULL in card.shown.lacks for card in cards)
    assert len(page(told)) < 40_000 * 4 / 3 + 120_000


def test_previews_are_small_whatever_the_sample_is(small: Small) -> None:
    told = tell(
        str(small.root),
        small.version(small.first),
        None,
        source_url=str(small.corpus),
        config=ReportConfig(),
    )
    for card in told.galleries.cards():
        assert len(card.shown.picture) < 20_000
        assert len(card.shown.sound) < 80_000


def test_a_source_that_is_gone_costs_previews_and_not_the_report(own: str, small: Small) -> None:
    version = find_dataset(own, small.first)
    told = tell(own, version, None, source_url=f"{own}/nowhere", config=ALL)
    (group,) = [one for one in told.galleries.lost if one.endswith("image_too_small")]
    (card,) = told.galleries.lost[group]
    assert "png: no longer where it was" in card.shown.lacks
    assert card.detail
    assert all(one.picture for cards in told.galleries.kept.values() for one in cards)
    unknown = tell(own, version, None, source_url=None, config=ALL)
    assert "nobody knows where the source lies" in page(unknown).decode()


def test_what_is_forgotten_is_in_no_report_from_then_on(own: str, small: Small) -> None:
    version = find_dataset(own, small.second)
    before = make_report(own, version, source_url=str(small.corpus), config=ALL)
    names = ["birds__tiny", "birds__sample-001"]
    assert all(name in html_of(before) for name in names)
    asked = ask(own, "small", names, load_forgotten(own, "small"))
    forget(own, "small", asked, by="somebody", why="a letter")
    assert find_report(own, version, config=ALL) is None
    after = make_report(own, version, source_url=str(small.corpus), config=ALL)
    assert not any(name in html_of(after) for name in names)
    assert facts_of(after)["num_kept"] == facts_of(before)["num_kept"] - 1
    assert facts_of(after)["losses"] == facts_of(before)["losses"]


def test_a_purge_deletes_reports_that_show_the_forgotten(own: str, small: Small) -> None:
    version = find_dataset(own, small.first)
    report = make_report(own, version, source_url=str(small.corpus), config=ALL)
    keys = set(pq.read_table(Path(report.url, "examples.parquet"))["key"].to_pylist())
    assert {"birds__tiny", "birds__broken", "birds__twin-of-1", "birds__sample-001"} <= keys
    asked = ask(own, "small", ["birds__tiny"], load_forgotten(own, "small"))
    forget(own, "small", asked, by="somebody", why="a letter")
    deleted = purge(own, "small", load_forgotten(own, "small"))
    assert report.url in deleted
    assert not Path(report.url).exists()


def test_neither_order_nor_pieces_of_what_is_read_change_a_byte(
    small: Small, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = small.report(small.second)
    monkeypatch.setattr(losses, "rows_files", lambda artifact: rows_files(artifact)[::-1])
    monkeypatch.setattr(contents, "_ROWS_AT_ONCE", 3)
    shutil.rmtree(Path(own, "steps", "small", "report"))
    again = make_report(
        own, find_dataset(own, small.second), source_url=str(small.corpus), config=ALL
    )
    assert again.manifest == report.manifest
    assert (
        Path(again.url, "report.html").read_bytes() == Path(report.url, "report.html").read_bytes()
    )


def test_division_into_tasks_changes_no_example_and_no_count(small: Small, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text((small.root.parent / "small.yaml").read_text())
    told = []
    for per_task in (8, 3):
        root = str(tmp_path / str(per_task))
        loaded = load_recipe(str(recipe), overrides=[f"source.samples_per_task={per_task}"])
        run_recipe(loaded, root=root, executor=LocalExecutor(), listener=ignore_event)
        report = find_report(root, find_dataset(root, None))
        assert report is not None, "the run has made it"
        told.append(facts_of(report))
    for name in ("examples", "losses", "scores", "levels", "parts"):
        assert told[0][name] == told[1][name], name


def test_states_without_losses_scores_or_labels_say_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    corpus = write_clips(tmp_path / "clips")
    run_small(corpus, root, name="clips", has_video=True)
    version = find_dataset(str(root), "clips")
    report = make_report(str(root), version, source_url=str(corpus))
    text = html_of(report)
    for words in (
        "Every sample that was found was kept",
        "No stage has measured anything",
        "Nothing was left out.",
        "No sample has lost to a twin",
        "there is nothing to compare it with",
    ):
        assert words in text
    assert "data:image/webp" in text


def test_thousands_of_classes_are_told_and_not_listed(small: Small) -> None:
    version = small.version(small.first)
    told = tell(str(small.root), version, None, source_url=None, config=ReportConfig())
    labels = Counter({(f"class {number:05d}", "train"): 1 for number in range(5000)})
    many = replace(told, contents=replace(told.contents, by_label=labels))
    text = page(many).decode()
    assert f"and {5000 - MAX_LABELS:,} smaller classes" in text
    assert text.count("class 0") == 2 * MAX_LABELS
    none = replace(told, contents=replace(told.contents, by_label=Counter(), has_classes=False))
    assert "they are no classes" in page(none).decode()


def test_the_table_of_examples_names_everything_that_is_shown(small: Small) -> None:
    report = small.report(small.first)
    shown = facts_of(report)["examples"]
    expected = {key for keys in (*shown["kept"].values(), *shown["lost"].values()) for key in keys}
    expected |= {key for pairs in shown["pairs"].values() for pair in pairs for key in pair}
    table = pq.read_table(Path(report.url, work.EXAMPLES_NAME))
    assert set(table["key"].to_pylist()) == expected
