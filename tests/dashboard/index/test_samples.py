"""The index of samples over real datasets."""

import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from many_samples import write_many_samples
from small_dataset import (
    NUM_KEPT,
    NUM_LEFT_OUT,
    png,
    run_small,
    tone,
    write_corpus,
    write_left_out,
)

from mmcore.core.explain import explain
from mmcore.core.forgotten import record_wish
from mmcore.core.lineage import find_dataset as find_on_disk
from mmcore.dashboard.index import build
from mmcore.dashboard.index.build import update
from mmcore.dashboard.index.datasets import (
    Dataset,
    facet_counts,
    find_dataset,
    list_datasets,
    losses,
)
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.query import Query
from mmcore.dashboard.index.samples import count_samples, find_page, find_sample, neighbours
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.dashboard.index.story import tell


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleDatabase, Dataset]:
    directory = tmp_path_factory.mktemp("small")
    root = directory / "root"
    version = run_small(write_left_out(write_corpus(directory / "corpus")), root)
    database = SampleDatabase(str(root / "state"))
    update(str(root), database)
    found = find_dataset(database, "small", version)
    assert found is not None
    return root, database, found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampleDatabase, Dataset]:
    root = tmp_path_factory.mktemp("many")
    write_many_samples(root, num_samples=20_000)
    database = SampleDatabase(str(root / "state"))
    update(str(root), database)
    return database, list_datasets(database)[0]


def walk(database: SampleDatabase, dataset: Dataset, query: Query, limit: int = 7) -> list[str]:
    keys: list[str] = []
    after = 0
    while True:
        page = find_page(database, dataset, query, after=after, limit=limit)
        keys += [row["key"] for row in page.rows]
        if not page.has_after:
            return keys
        after = page.rows[-1]["id"]


def test_every_sample_is_indexed_once_kept_or_not(small) -> None:
    _, database, dataset = small
    keys = walk(database, dataset, Query())
    assert len(keys) == len(set(keys)) == NUM_KEPT + NUM_LEFT_OUT == dataset.total == dataset.done
    assert dataset.is_ready


def test_what_was_lost_adds_up_to_the_manifests(small) -> None:
    _, database, dataset = small
    lost = {(row["step"], row["reason"]): row["num"] for row in losses(database, dataset)}
    counted = {
        (level["step"], reason): num
        for level in dataset.funnel
        for status in ("dropped", "quarantined")
        for reason, num in level[status].items()
    }
    assert lost == counted
    assert sum(lost.values()) == NUM_LEFT_OUT
    for level in dataset.funnel:
        gone = sum(level["dropped"].values()) + sum(level["quarantined"].values())
        assert level["found"] == level["kept"] + gone


def test_pages_forward_and_back_hold_the_same_samples(small) -> None:
    _, database, dataset = small
    forward = walk(database, dataset, Query())
    last = find_sample(database, dataset, forward[-1])
    page = find_page(database, dataset, Query(), before=last["id"], limit=5)
    assert [row["key"] for row in page.rows] == forward[-6:-1]
    assert page.has_before
    assert neighbours(database, dataset, Query(), last["id"]) == (forward[-2], None)


def test_filters_and_words_combine_as_a_scan_would(many) -> None:
    database, dataset = many
    rows = database.read().execute("SELECT * FROM sample ORDER BY id").fetchall()
    facets = {name: list(values)[:2] for name, values in facet_counts(database, dataset).items()}
    names = ("status", "split", "label", "language", "reason")
    for num in (1, 2, 3):
        for chosen in itertools.combinations(names, num):
            filters = tuple((name, facets[name][-1]) for name in chosen)
            expected = [
                row["key"] for row in rows if all(row[name] == value for name, value in filters)
            ]
            query = Query(filters)
            assert walk(database, dataset, query, limit=997) == expected
            assert count_samples(database, dataset, query) == (len(expected), False)
    query = Query((("label", facets["label"][0]), ("split", "test")), words="frog")
    expected = [
        row["key"]
        for row in rows
        if row["label"] == facets["label"][0]
        and row["split"] == "test"
        and ("frog" in row["key"] or "frog" in row["caption"])
    ]
    assert 0 < len(expected) < 1000
    assert count_samples(database, dataset, query) == (len(expected), False)
    assert walk(database, dataset, query, limit=100) == expected


def test_the_counts_of_a_filter_are_those_of_the_samples(many) -> None:
    database, dataset = many
    rows = database.read().execute("SELECT * FROM sample").fetchall()
    counts = facet_counts(database, dataset)
    for facet in ("status", "split", "label", "language", "reason"):
        assert counts[facet] == Counter(row[facet] for row in rows if row[facet])


def test_words_are_found_in_captions_keys_and_metadata(small) -> None:
    _, database, dataset = small
    assert walk(database, dataset, Query(words="number 7")) == ["birds__sample-007"]
    assert walk(database, dataset, Query(words='"number 7 of"')) == ["birds__sample-007"]
    assert walk(database, dataset, Query(words='"7 number"')) == []
    assert len(walk(database, dataset, Query(words="CC0"))) == NUM_KEPT + NUM_LEFT_OUT
    assert len(walk(database, dataset, Query(words="twin-of-1"))) == 1
    # no word is "drawin": what begins like it is found
    assert walk(database, dataset, Query(words="drawin")) == ["birds__drawing"]


@pytest.mark.parametrize(
    "words", ['"', "a AND", "NEAR(", "body:x", "* *", "' OR 1=1 --", "\x00", "facets:v1", "^x + -y"]
)
def test_no_search_is_a_syntax_error(small, words: str) -> None:
    _, database, dataset = small
    find_page(database, dataset, Query(words=words))
    count_samples(database, dataset, Query(words=words))


def test_duplicates_and_survivors_are_found_from_either_side(small) -> None:
    _, database, dataset = small
    lost = walk(database, dataset, Query((("duplicate", "lost"),)))
    assert lost == ["birds__twin-of-1", "birds__twin-of-5"]
    survivors = walk(database, dataset, Query((("duplicate", "survivor"),)))
    assert sorted(survivors) == ["birds__sample-001", "birds__sample-005"]
    assert walk(database, dataset, Query(twin="birds__sample-001")) == ["birds__twin-of-1"]


def test_an_increment_adds_only_what_is_new(tmp_path: Path) -> None:
    corpus, root = tmp_path / "corpus", tmp_path / "root"
    first = run_small(write_left_out(write_corpus(corpus)), root)
    database = SampleDatabase(str(root / "state"))
    update(str(root), database)
    num_before = database.read().execute("SELECT total_changes()").fetchone()[0]
    assert num_before >= 0
    write_corpus(corpus, first=100, num=10)
    (corpus / "birds" / "again.png").write_bytes(png(7))
    (corpus / "birds" / "again.txt").write_text("The seventh again.")
    (corpus / "birds" / "again.wav").write_bytes(tone(1000.0))
    second = run_small(corpus, root)
    update(str(root), database)
    new, old = list_datasets(database, "small")
    assert (new.version, old.version) == (second, first)
    assert new.segments[0] == old.segments[0]
    assert len(new.segments) == 2
    assert new.done == old.done + 11
    (count,) = database.read().execute("SELECT count(*) FROM sample").fetchone()
    assert count == new.done
    assert len(walk(database, new, Query((("status", "kept"),)))) == NUM_KEPT + 10
    again = find_sample(database, new, "birds__again")
    assert (again["reason"], again["twin"]) == ("exact_duplicate", "birds__sample-007")
    assert find_sample(database, old, "birds__again") is None


def test_an_interrupted_index_goes_on_and_ends_with_the_same_rows(
    many, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many_samples(tmp_path, num_samples=3000)
    whole = SampleDatabase(str(tmp_path / "whole"))
    update(str(tmp_path), whole)
    broken = SampleDatabase(str(tmp_path / "broken"))
    monkeypatch.setattr(build, "_BATCH", 500)
    real = build._Writer.add
    calls = itertools.count()

    def stop_in_the_middle(self: build._Writer, batch: list) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        real(self, batch)

    monkeypatch.setattr(build._Writer, "add", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        update(str(tmp_path), broken)
    (half,) = list_datasets(broken)
    assert half.done == 1500
    assert not half.is_ready
    assert len(walk(broken, half, Query((("status", "kept"),)), limit=400)) == 1500
    monkeypatch.setattr(build._Writer, "add", real)
    update(str(tmp_path), broken)
    for table in ("sample", "member", "loss", "facet_value"):
        rows = [tuple(row) for row in whole.read().execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
        assert [
            tuple(row) for row in broken.read().execute(f"SELECT * FROM {table} ORDER BY 1, 2")
        ] == rows


def test_a_dataset_that_is_deleted_is_forgotten(tmp_path: Path) -> None:
    write_many_samples(tmp_path, num_samples=200, name="one")
    version = write_many_samples(tmp_path, num_samples=300, name="two", seed=1)
    database = SampleDatabase(str(tmp_path / "state"))
    update(str(tmp_path), database)
    (tmp_path / "ds" / "one" / list_datasets(database, "one")[0].version / "manifest.json").unlink()
    update(str(tmp_path), database)
    assert [(one.name, one.version) for one in list_datasets(database)] == [("two", version)]
    for table in ("sample", "member", "part_file", "loss"):
        (num,) = database.read().execute(f"SELECT count(*) FROM {table}").fetchone()
        assert num > 0
    (count,) = database.read().execute("SELECT count(*) FROM sample").fetchone()
    assert count == 300


def test_the_index_is_built_again_when_it_was_thrown_away(tmp_path: Path) -> None:
    write_many_samples(tmp_path, num_samples=300)
    index = SampleIndex(str(tmp_path), str(tmp_path / "state"))
    update(str(tmp_path), index.database)
    Path(index.database.path).unlink()
    time.sleep(0.6)  # it is looked after twice a second
    assert list_datasets(index.database) == []
    update(str(tmp_path), index.database)
    assert list_datasets(index.database)[0].done == 300
    index.close()


def test_the_story_is_the_one_that_explain_tells(small) -> None:
    root, database, dataset = small
    index = SampleIndex(str(root), str(root / "state"))
    on_disk = find_on_disk(str(root), f"small/{dataset.version}")
    for key in ("birds__sample-003", "birds__twin-of-1", "birds__drawing", "birds__tiny"):
        told = tell(index, dataset, find_sample(database, dataset, key))
        known = explain(str(root), on_disk, key)
        assert [(one.step, one.status) for one in told.verdicts] == [
            (one["step"], one["status"]) for one in known["steps"]
        ]
        assert told.scores == known["scores"]
        assert told.meta == known["meta"]
        assert {ext: ref.sha256 for ext, ref in told.source.items()} == {
            ext: ref["sha256"] for ext, ref in known["source"]["parts"].items()
        }
        decided = known["decided_by"]
        if decided:
            last = told.verdicts[-1]
            assert (last.step, last.rule, last.reason, last.twin) == (
                decided["step"], decided["rule"], decided["reason"], decided["twin"],
            )  # fmt: skip
    index.close()


def test_a_broken_dataset_says_why_and_harms_no_other(tmp_path: Path) -> None:
    version = write_many_samples(tmp_path, num_samples=200, name="broken")
    write_many_samples(tmp_path, num_samples=200, name="sound", seed=1)
    (tmp_path / "ds" / "broken" / version / "manifest.parquet").write_bytes(b"no table")
    database = SampleDatabase(str(tmp_path / "state"))
    update(str(tmp_path), database)
    (broken,), (sound,) = list_datasets(database, "broken"), list_datasets(database, "sound")
    assert broken.error
    assert sound.is_ready


def test_the_gallery_shows_nothing_that_is_to_be_forgotten_or_counts_no_more(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    root = tmp_path / "root"
    first = run_small(corpus, root)
    changed, *_, removed = sorted(corpus.rglob("*.png"))
    changed.write_bytes(png(77))
    for path in removed.parent.glob(f"{removed.stem}.*"):
        path.unlink()
    second = run_small(corpus, root)
    database = SampleDatabase(str(root / "state"), str(root))
    update(str(root), database)
    old, new = (find_dataset(database, "small", version) for version in (first, second))
    assert old is not None
    assert new is not None
    keys = walk(database, new, Query())
    assert len(keys) == len(set(keys)) == NUM_KEPT - 1
    key_of = {
        path: "__".join(path.relative_to(corpus).with_suffix("").parts)
        for path in (changed, removed)
    }
    assert find_sample(database, new, key_of[removed]) is None
    assert find_sample(database, old, key_of[removed]) is not None
    here, before = (find_sample(database, one, key_of[changed]) for one in (new, old))
    assert here["parts"] != before["parts"]
    everything = walk(database, old, Query())
    assert len(everything) == NUM_KEPT
    samples = {"samples": {key_of[changed]: ()}, "versions": (), "models": ()}
    record_wish(str(root), "small", by="Ann", why="a letter", **samples)
    for version in (first, second):
        dataset = find_dataset(database, "small", version)
        shown = walk(database, dataset, Query())
        assert key_of[changed] not in shown
        assert count_samples(database, dataset, Query()) == (len(shown), False)
        kept = Query((("status", "kept"),))
        assert count_samples(database, dataset, kept) == (len(shown), False)
        assert facet_counts(database, dataset)["status"]["kept"] == len(shown)
        assert find_sample(database, dataset, key_of[changed]) is None
