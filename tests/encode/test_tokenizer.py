"""The tokenizer: trained on the training split alone, and the same bytes every time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mmcore import storage
from mmcore.core.manifest import Manifest
from mmcore.core.rows import write_part
from mmcore.core.step import Artifact, Inputs, TaskContext, TaskReport
from mmcore.encode.tokenizer import TokenizerWork
from mmcore.errors import ConfigError, StepError
from mmcore.sample import Dropped, Outcome, Part, Sample, sha256_hex

ANIMALS = [
    "dog",
    "cat",
    "horse",
    "cow",
    "caf\u00e9",
    "\u043a\u043e\u0442",
    "\u05d7\u05ea\u05d5\u05dc",
]
CAPTIONS = [f"A {size} {animal}." for size in ("small", "big", "Tiny") for animal in ANIMALS]


def split_of(folder: Path, outcomes: Sequence[Outcome]) -> TaskContext:
    """A finished step `split` on disk, and the context of a step that reads it."""
    source = str(folder / "split")
    writing = TaskContext(Inputs({}, {}), source, str(folder))
    report = write_part("part-000000", [("", it) for it in outcomes], step="split", context=writing)
    manifest = Manifest("split", "0" * 64, {}, report.counts, tuple(report.files))
    inputs = Inputs({"split": Artifact(source, manifest)}, {"split": source})
    return TaskContext(inputs, str(folder / "tokenizer"), str(folder))


def caption(number: int, text: str, split: str = "train") -> Sample:
    return Sample(f"s{number}", parts={"txt": Part(data=text.encode())}, meta={"split": split})


def run(work: TokenizerWork, context: TaskContext) -> TaskReport:
    [task] = work.tasks(context.inputs)
    return work.run(task, context)


def test_tokenizer_is_trained_and_recorded(tmp_path: Path) -> None:
    work = TokenizerWork(vocab_size=120)
    context = split_of(tmp_path, [caption(i, text) for i, text in enumerate(CAPTIONS)])
    report = run(work, context)
    [record] = report.files
    data = storage.read(storage.join(context.output_url, "tokenizer.json"))
    assert (record.path, record.sha256) == ("tokenizer.json", sha256_hex(data))
    tokenizer = Tokenizer.from_str(data.decode())
    assert report.facts == {
        "vocab_size": tokenizer.get_vocab_size(),
        "num_captions": len(CAPTIONS),
    }
    assert tokenizer.get_vocab_size() <= 120
    ids = [tokenizer.token_to_id(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")]
    assert ids == [0, 1, 2, 3]
    assert work.finish([report], context) == TaskReport(files=[], facts=report.facts)


def test_only_kept_captions_of_the_training_split_are_read(tmp_path: Path) -> None:
    outcomes: list[Outcome] = [caption(i, "aaaa bbbb") for i in range(5)]
    outcomes.append(caption(5, "xxxx", split="test"))
    outcomes.append(Dropped(caption(6, "yyyy"), "duplicate"))
    outcomes.append(Sample("s7", parts={"png": Part(data=b"")}, meta={"split": "train"}))
    context = split_of(tmp_path, outcomes)
    assert run(TokenizerWork(vocab_size=50), context).facts["num_captions"] == 5
    url = storage.join(context.output_url, "tokenizer.json")
    tokenizer = Tokenizer.from_str(storage.read(url).decode())
    assert tokenizer.token_to_id("a") is not None
    assert tokenizer.token_to_id("x") is None
    assert tokenizer.token_to_id("y") is None


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    context = split_of(tmp_path, [caption(0, "A cat.", split="test")])
    with pytest.raises(StepError, match="nothing to train a tokenizer on"):
        run(TokenizerWork(), context)


@pytest.mark.parametrize("kind", ["bpe", "byte_bpe"])
def test_order_hash_seed_and_threads_do_not_change_a_byte(kind: str) -> None:
    program = f"""
import random
from mmcore.encode.tokenizer import TokenizerWork
captions = [f"{{i % 17}} w{{i % 31}} \\u00e9{{chr(0x400 + i % 60)}}{{chr(0x5d0 + i % 20)}}" for i in range(400)]
for seed in range(3):
    random.Random(seed).shuffle(captions)
    print(TokenizerWork(vocab_size=300, kind={kind!r}).train(captions).to_str())
"""
    outputs = set()
    for hash_seed, parallel in (("0", "true"), ("1", "false"), ("2", "true")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "TOKENIZERS_PARALLELISM": parallel,
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        outputs.update(done.stdout.splitlines())
    assert len(outputs) == 1


@pytest.mark.parametrize("kind", ["bpe", "byte_bpe"])
def test_text_comes_back_from_its_ids(kind: str) -> None:
    work = TokenizerWork(vocab_size=400, kind=kind, lowercase=False)  # type: ignore[arg-type]
    tokenizer = work.train(CAPTIONS)
    encoding = tokenizer.encode("A big caf\u00e9.")
    assert encoding.ids[0] == 2
    assert encoding.ids[-1] == 3
    assert tokenizer.decode(encoding.ids) == "A big caf\u00e9."


def test_case_and_width_do_not_matter_to_bpe() -> None:
    tokenizer = TokenizerWork(vocab_size=400).train(CAPTIONS)
    assert tokenizer.encode("\uff21 DOG").ids == tokenizer.encode("a dog").ids


def test_frequent_words_become_one_token() -> None:
    tokenizer = TokenizerWork(vocab_size=400).train(CAPTIONS)
    assert tokenizer.encode("small dog").tokens == ["[CLS]", "\u2581small", "\u2581dog", "[SEP]"]


def test_unseen_characters_are_unknown_to_bpe_and_known_to_byte_bpe() -> None:
    assert 1 in TokenizerWork(vocab_size=400).train(CAPTIONS).encode("\u6f22").ids
    byte_bpe = TokenizerWork(vocab_size=400, kind="byte_bpe").train(CAPTIONS)
    assert byte_bpe.decode(byte_bpe.encode("\u6f22").ids) == "\u6f22"


def test_many_characters_leave_half_of_the_vocabulary_to_merges() -> None:
    captions = CAPTIONS * 5 + [chr(0x4E00 + i) for i in range(500)]
    tokenizer = TokenizerWork(vocab_size=60).train(captions)
    assert tokenizer.get_vocab_size() == 60
    singles = [token for token in tokenizer.get_vocab() if len(token) == 1]
    assert len(singles) == 28


def test_vocabulary_too_small_for_the_alphabet_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="Use 260 or more"):
        TokenizerWork(vocab_size=259, kind="byte_bpe")


def test_identity_changes_with_every_field() -> None:
    works = [
        TokenizerWork(),
        TokenizerWork(vocab_size=300),
        TokenizerWork(min_frequency=3),
        TokenizerWork(kind="byte_bpe"),
        TokenizerWork(lowercase=False),
    ]
    assert len({str(work.identity()) for work in works}) == len(works)
