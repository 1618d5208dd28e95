"""The sections of a recipe. What a section's components accept is said by their own classes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

Fields = dict[str, Any]
SEARCHED = ("train.", "model.", "loader.")
"""Sections of which a training is made, and the dataset is not."""


class Section(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSection(Section):
    """Where the raw corpus is and how its files form samples."""

    path: str
    """A folder, or an fsspec URL such as s3://bucket/prefix."""
    layout: Fields
    """`use: folder`, `webdataset`, `table`, `urls` or `stamps`, or an import path, with its
    fields."""
    samples_per_task: Annotated[int, Field(ge=1)] = 256
    captions: Literal["together", "each"] = "together"
    """Captions by language (`en.txt`, `fr.txt`): parts of one sample, or a sample each."""
    hint: str = ""
    """Said when nothing is found at `path`: how to get the corpus."""


class RankRange(Section):
    """How many processes may train together."""

    min: Annotated[int, Field(ge=1)]
    """With so few training goes on when a machine is gone."""
    max: Annotated[int, Field(ge=1)]
    """So many there are where there is room."""

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        """Return the range that a number alone stands for."""
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if value < 1:
            raise ValueError("use 1 or more")
        return {"min": value, "max": value}


_RANK_COUNT = {"type": "integer", "minimum": 1}
_RANKS_SCHEMA = {
    "anyOf": [
        _RANK_COUNT,
        {
            "type": "object",
            "properties": {"min": _RANK_COUNT, "max": _RANK_COUNT},
            "required": ["min", "max"],
            "additionalProperties": False,
        },
    ]
}


class PlacementSection(Section):
    """Where things run. Nothing here changes a fingerprint."""

    num_ranks: Annotated[RankRange, WithJsonSchema(_RANKS_SCHEMA)] = RankRange(min=2, max=2)
    """Processes that train together: a number, or `{min: 1, max: 4}`."""


class RetrainSection(Section):
    """When new data is worth a new model, and where that one starts."""

    min_new_samples: Annotated[int, Field(ge=1)] = 1
    """Fewer wait for more."""
    max_wait_hours: Annotated[float, Field(ge=0)] = 24.0
    """After so long without a retraining one new sample is enough; 0 waits for ever."""
    quiet_seconds: Annotated[float, Field(ge=0)] = 30.0
    """The source must have stood still for so long: a copy under way is one arrival, not many."""
    start: Literal["champion", "scratch"] = "champion"
    """The weights that training starts from."""
    overrides: tuple[str, ...] = ()
    """Settings of the recipe for a retraining: `train.epochs=6`. The first training, and one on a
    dataset that is made from the ground up, are as the recipe says;
    with `start: scratch` only the latter is."""


class Range(Section):
    """The values that a setting may take in a search: one of these."""

    choice: tuple[Any, ...] | None = None
    """One of some values."""
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    """Any order of magnitude is as likely as any other: for learning rates."""
    integer: tuple[int, int] | None = None
    """Both ends are values."""

    @model_validator(mode="after")
    def _check(self) -> "Range":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"give one of {names}, not {len(given)} of them")
        if self.choice == ():
            raise ValueError("choice is empty")
        for low, high in filter(None, (self.uniform, self.log_uniform, self.integer)):
            if not low < high:
                raise ValueError(f"{given[0]} from {low} to {high} is no range")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform from {self.log_uniform[0]}: a logarithm begins above 0")
        return self


class TuneSection(Section):
    """What `mm tune` searches: settings with dots in their names, each with a range."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Range]

    metric: str = "val_accuracy"
    """What trainings report after each epoch: `val_loss`, `val_accuracy`,
    `val_accuracy_<modality>`."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less of the metric is better."""
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    """No trial is stopped before."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Of the trials that reach an epoch at which they are compared, one in so many goes on."""

    @model_validator(mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name in cls.model_fields:
                continue
            if not str(name).startswith(SEARCHED) or str(name).count(".") < 1:
                known = ", ".join(cls.model_fields)
                raise ValueError(
                    f"{name!r} is nothing to search: a range is for a setting of "
                    f"{', '.join(SEARCHED)} such as train.learning_rate; besides there are {known}"
                )
            if name == "train.epochs":
                raise ValueError("train.epochs cannot be searched: trials are compared by epochs")
        return value

    @property
    def ranges(self) -> dict[str, Range]:
        """The settings that are searched."""
        return dict(self.__pydantic_extra__)


class Recipe(Section):
    """A whole pipeline: from a raw corpus to a registered model."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    """Of the dataset; letters, digits, - and _."""
    seed: int = 0
    """Of the split, the order of samples and the training, where they name none of their own."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The share of broken samples above which a step fails."""
    limits: Fields = {}
    """What one sample may cost in `clean` and `encode` before it is quarantined."""
    source: SourceSection
    clean: dict[str, Fields | None] = {}
    """Stages in their order; the first that does not keep a sample decides."""
    dedup: Fields | None = None
    """One rule, or several by name, each over what those before it kept."""
    split: Fields
    encode: dict[str, Fields | None] = {}
    """Stages in their order."""
    tokenizer: Fields | None = None
    shard: Fields = {}
    loader: Fields = {}
    model: Fields | None = None
    """Without it the recipe ends with the dataset."""
    train: Fields = {}
    evaluate: Fields = {}
    register_: Annotated[Fields, Field(alias="register")] = {}
    test_set: Literal["first", "newest"] = "first"
    """What models are measured on when the dataset grows: the test split of its first version, the
    same for all of them, or that of the version each was trained on."""
    retrain: RetrainSection = RetrainSection()
    tune: TuneSection = TuneSection()
    placement: PlacementSection = PlacementSection()
