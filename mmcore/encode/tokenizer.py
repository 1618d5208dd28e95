"""The step that trains a tokenizer on the captions of the training split, and on nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from mmcore import storage
from mmcore.core.rows import file_record, load_part, read_kept
from mmcore.core.step import Inputs, Task, TaskContext, TaskReport
from mmcore.errors import ConfigError, StepError, StorageError
from mmcore.media.text import decode_text
from mmcore.sample import Json, sha256_hex

TOKENIZER_NAME = "tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
"""Ids 0 to 3, in this order."""
INPUT_STEP = "split"
TRAIN_SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class TokenizerWork:
    """Train a byte-pair encoding (Sennrich et al., ACL 2016) and write `tokenizer.json`.

    Reads the kept samples of the step `split` whose metadata says split = train. The file is the
    format of Hugging Face `tokenizers`; a text is encoded as [CLS] ... [SEP].
    """

    # pydantic reads this when a recipe is checked: an unknown key is an error, with a suggestion
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    code_version: ClassVar[int] = 1

    vocab_size: int = 4_096
    """At most, special tokens included."""
    min_frequency: int = 2
    """Of a pair, for it to be merged."""
    kind: Literal["bpe", "byte_bpe"] = "bpe"
    """`bpe`: over characters, after NFKC; rare characters become [UNK]. `byte_bpe`: over the bytes
    of UTF-8, after NFC; nothing is unknown."""
    lowercase: bool = True
    path: str = ""
    """A `tokenizer.json` of Hugging Face `tokenizers` to take as it is; nothing is trained then,
    and the fields above say nothing."""

    def __post_init__(self) -> None:
        smallest = len(SPECIAL_TOKENS) + (256 if self.kind == "byte_bpe" else 2)
        if self.vocab_size < smallest:
            raise ConfigError(
                f"tokenizer.vocab_size={self.vocab_size} is too small for {self.kind}: the special "
                f"tokens and the alphabet alone need {smallest}. Use {smallest} or more."
            )

    @property
    def runs_in_driver(self) -> bool:
        """No: it reads every caption."""
        return False

    @property
    def samples_from(self) -> None:
        """It reads captions of the training split alone; samples do not pass through it."""
        return

    def identity(self) -> Mapping[str, Json]:
        """Return the class, the version of its code, and its fields; of a given file its hash."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        fields = asdict(self)
        del fields["path"]
        if self.path:
            fields = {"given": sha256_hex(given_tokenizer(self.path)[0])}
        return {"work": name, "code_version": self.code_version, **fields}

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        """Return one task: merges are decided over all captions at once."""
        return [Task("tokenizer")]

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        """Train on the captions and write the file; StepError when there is no caption."""
        if self.path:
            data, tokenizer = given_tokenizer(self.path)
            record = file_record(context.output_url, TOKENIZER_NAME, data)
            return TaskReport(files=[record], facts={"vocab_size": tokenizer.get_vocab_size()})
        captions = list(_train_captions(context.inputs))
        if not captions:
            raise StepError(
                f"No sample of split {TRAIN_SPLIT!r} in the step {INPUT_STEP!r} has a text, so "
                "there is nothing to train a tokenizer on. Leave the tokenizer out of the recipe, "
                "or look at what the steps before dropped."
            )
        tokenizer = self.train(captions)
        data = (tokenizer.to_str(pretty=True) + "\n").encode()
        facts: dict[str, Json] = {
            "vocab_size": tokenizer.get_vocab_size(),
            "num_captions": len(captions),
        }
        record = file_record(context.output_url, TOKENIZER_NAME, data)
        return TaskReport(files=[record], facts=facts)

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        """Return the facts of the one task."""
        return TaskReport(files=[], facts=reports[0].facts)

    def train(self, captions: Iterable[str]) -> Tokenizer:
        """Return a tokenizer; the same captions in any order give the same one."""
        ordered = sorted(captions)
        tokenizer = _untrained(self.kind, lowercase=self.lowercase)
        alphabet = self._alphabet(tokenizer, ordered)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet,
            # the trainer would choose among equally frequent characters at random
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        tokenizer.train_from_iterator(ordered, trainer)
        return tokenizer

    def _alphabet(self, tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
        """Return the most frequent characters; half of the vocabulary is left to merges."""
        if self.kind == "byte_bpe":
            return sorted(pre_tokenizers.ByteLevel.alphabet())
        counts: Counter[str] = Counter()
        for caption in captions:
            normalized = tokenizer.normalizer.normalize_str(caption)
            for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized):
                counts.update(piece)
        room = max(2, (self.vocab_size - len(SPECIAL_TOKENS)) // 2)
        return sorted(sorted(counts, key=lambda char: (-counts[char], char))[:room])


def given_tokenizer(path: str) -> tuple[bytes, Tokenizer]:
    """Return a tokenizer file and what it holds; ConfigError when it holds none."""
    try:
        data = storage.read(path)
        return data, Tokenizer.from_buffer(data)
    except (StorageError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no tokenizer: {error}. Give a tokenizer.json of Hugging Face tokenizers."
        ) from error


def _untrained(kind: str, *, lowercase: bool) -> Tokenizer:
    steps: list[Any] = [normalizers.NFC() if kind == "byte_bpe" else normalizers.NFKC()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    if kind == "byte_bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[1]))
        # a mark in front of every word, so that decoding knows where words begin
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        )
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.normalizer = normalizers.Sequence(steps)
    cls, sep = (SPECIAL_TOKENS.index(name) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return tokenizer


def _train_captions(inputs: Inputs) -> Iterable[str]:
    for sample in read_kept(inputs[INPUT_STEP]):
        extension = sample.extension("text")
        if extension is not None and sample.meta.get("split") == TRAIN_SPLIT:
            yield decode_text(load_part(sample.parts[extension], inputs.bases))
