"""From a recipe to a graph: the one module that knows every stage."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mmcore import storage
from mmcore.clean.parts import RequireParts
from mmcore.config import Loaded, Path_, Problem, load_config
from mmcore.core.ahead import working_ahead
from mmcore.core.corpus_work import CorpusWork
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.graph import Graph
from mmcore.core.linkage import META_PREFIX
from mmcore.core.map_work import MapWork
from mmcore.core.source import SCAN_STEP, Source
from mmcore.core.stage import CorpusRule, Stage
from mmcore.core.step import Step, Work
from mmcore.encode.tokenizer import TokenizerWork
from mmcore.errors import ConfigError
from mmcore.ingest.captions import EXPANDED_FROM
from mmcore.ingest.layout import ContainerLayout, Layout
from mmcore.ingest.work import IngestWork
from mmcore.recipe.components import InvalidComponent, find_class, make, make_named
from mmcore.recipe.overrides import is_by_modality, spelled_out
from mmcore.recipe.schema import Recipe
from mmcore.shard.work import ShardWork

MadeT = TypeVar("MadeT")


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe and the graph that it describes."""

    recipe: Recipe
    graph: Graph
    loaded: Loaded[Recipe]
    overrides: tuple[str, ...] = ()
    """What was set besides the file: `a.b=c`."""


def load_recipe(
    file: str,
    *,
    overrides: Sequence[str] = (),
    rebuild: bool = False,
    settled: str | None = None,
) -> LoadedRecipe:
    """Read, check and build a recipe; ConfigError with every problem and its place.

    `rebuild` makes the dataset from the ground up, whatever it could build on; `settled` is then
    the fingerprint of a version whose splits are held on to.
    """
    if any(map(is_by_modality, overrides)):
        overrides = spelled_out(overrides, load_config(file, Recipe).value.clean)
    loaded = load_config(file, Recipe, overrides=overrides)
    builder = _Builder(loaded.value)
    steps = builder.steps()
    problems = [*loaded.problems, *builder.problems]
    if problems:
        raise loaded.error(problems)
    section = loaded.value.source
    path = section.path.removeprefix("file://")
    url = os.path.abspath(path) if storage.is_local(path) else path
    ingest = next(step.work for step in steps if isinstance(step.work, IngestWork))
    reader = ingest.layout if isinstance(ingest.layout, ContainerLayout) else None
    graph = Graph(
        loaded.value.name,
        Source(url, section.hint, reader, builder.limits),
        tuple(steps),
        compare=None if rebuild else ingest.compare,
        settled=settled,
    )
    return LoadedRecipe(loaded.value, graph, loaded, tuple(overrides))


class _Builder:
    """Builds the steps, collecting problems so that all are said at once."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problems: list[Problem] = []
        # where they are wrong, the problem is said and nothing is run by these
        self.limits = self._made(DecoderLimits, recipe.limits, ("limits",)) or DecoderLimits()

    def steps(self) -> list[Step]:
        """Return the steps of the recipe in their order; incomplete where there are problems."""
        steps = self._data_steps()
        if self.recipe.model is not None:
            steps += self._model_steps()
        return [step for step in steps if step is not None]

    def _data_steps(self) -> list[Step | None]:
        recipe = self.recipe
        if recipe.source.path.startswith("memory://"):
            message = (
                "what is in the memory of this process is not there for the others, in which "
                "samples are read and decoded. Give a folder or a bucket."
            )
            self.problems.append(Problem(("source", "path"), message))
        layout = self._named(recipe.source.layout, ("source", "layout"), Layout, default="folder")
        split = self._rule(recipe.split, ("split",), default="group_split", seed=recipe.seed)
        if recipe.source.captions == "each" and split is not None:
            split = _linked(split)
        clean = self._chain(recipe.clean, "clean", "ingest")
        before_split = "clean" if recipe.dedup is None else "dedup"
        steps = [
            self._step("ingest", self._ingest(layout), SCAN_STEP, grows=True),
            self._step("clean", clean, "ingest"),
        ]
        if recipe.dedup is not None:
            dedup = _corpus_work("dedup", "clean", self._dedup(recipe.dedup))
            steps.append(self._step("dedup", dedup, "clean", grows=True))
        work = _corpus_work("split", before_split, [split])
        steps.append(self._step("split", work, before_split, grows=True, settles=True))
        if recipe.tokenizer is not None:
            tokenizer = self._made(TokenizerWork, recipe.tokenizer, ("tokenizer",))
            # models of one dataset share it, so that one can start from another's weights
            steps.append(self._step("tokenizer", tokenizer, "split", pinned=("split",)))
        encode = self._chain(recipe.encode, "encode", "split")
        ahead = working_ahead(clean.stages, encode.stages)
        steps[1] = self._step("clean", replace(clean, ahead=ahead), "ingest")
        steps.append(self._step("encode", encode, "split", *self._needs(encode)))
        defaults = {
            "name": recipe.name,
            "seed": recipe.seed,
            "licence": getattr(layout, "licence", ""),
            "together": getattr(split, "together", ()),
            "optional": _optional(clean),
            "max_distance": getattr(split, "max_distance", {}),
            "min_similarity": getattr(split, "min_similarity", {}),
        }
        shard = self._made(ShardWork, {**defaults, **recipe.shard}, ("shard",))
        directory = f"ds/{recipe.name}"
        steps.append(self._step("shard", shard, "encode", directory=directory, grows=True))
        return steps

    def _model_steps(self) -> list[Step | None]:
        """Return the steps from training on; what they import is not needed for data alone."""
        from mmcore.evaluate.work import EvaluateWork
        from mmcore.load.batches import MultimodalLoader
        from mmcore.models.config import ModelConfig
        from mmcore.register.work import RegisterWork
        from mmcore.train.config import TrainConfig
        from mmcore.train.work import TrainWork

        recipe = self.recipe
        if recipe.tokenizer is None:
            message = "a model needs a tokenizer: add a `tokenizer:` section"
            self.problems.append(Problem(("model",), message))
        loader = self._named(recipe.loader, ("loader",), MultimodalLoader, default="multimodal")
        model = self._made(ModelConfig, recipe.model or {}, ("model",))
        train = self._made(TrainConfig, {"seed": recipe.seed, **recipe.train}, ("train",))
        if loader is None or model is None or train is None:
            return []
        ranks = recipe.placement.num_ranks
        least = ranks.min if ranks.min != ranks.max else 0
        training = self._guarded(
            lambda: TrainWork(
                model=model, train=train, loader=loader, num_ranks=ranks.max, min_ranks=least
            ),
            ("train",),
        )
        evaluation = self._made(EvaluateWork, {"loader": loader, **recipe.evaluate}, ("evaluate",))
        registration = self._made(
            RegisterWork, {"model_name": recipe.name, **recipe.register_}, ("register",)
        )
        # all models are measured on one test set, or else a champion could not be compared
        test_set = ("shard",) if recipe.test_set == "first" else ()
        return [
            self._step("train", training, "shard", "tokenizer"),
            self._step("evaluate", evaluation, "train", "shard", "tokenizer", pinned=test_set),
            self._step("register", registration, "evaluate", "train", "shard"),
        ]

    def _step(
        self,
        name: str,
        work: Work | None,
        *inputs: str,
        directory: str = "",
        grows: bool = False,
        settles: bool = False,
        pinned: Sequence[str] = (),
    ) -> Step | None:
        if work is None:
            return None
        return Step(
            name,
            work,
            inputs,
            directory=directory,
            max_quarantined=self.recipe.max_quarantined,
            grows=grows,
            settles=settles,
            pinned=frozenset(pinned),
        )

    def _ingest(self, layout: Layout | None) -> IngestWork | None:
        source = self.recipe.source
        if layout is None:
            return None
        return IngestWork(
            layout=layout,
            samples_per_task=source.samples_per_task,
            captions=source.captions,
            limits=self.limits,
        )

    def _chain(
        self, section: Mapping[str, Mapping[str, Any] | None], step: str, samples_from: str
    ) -> MapWork:
        stages = [
            self._named(fields, (step, name), Stage, default=name)
            for name, fields in section.items()
        ]
        found = tuple(stage for stage in stages if stage is not None)
        return MapWork(step=step, samples_from=samples_from, stages=found, limits=self.limits)

    def _needs(self, work: MapWork) -> list[str]:
        """Return the steps that a chain reads besides the one of its samples."""
        needed = sorted({name for stage in work.stages for name in stage.needs})
        if "tokenizer" in needed and self.recipe.tokenizer is None:
            message = "a stage wants the recipe's tokenizer: add a `tokenizer:` section or a path"
            self.problems.append(Problem(("encode",), message))
        return needed

    def _dedup(self, fields: Mapping[str, Any]) -> list[CorpusRule | None]:
        """Return the one rule, or several that are told apart by their names."""
        if not has_several_rules(fields):
            return [self._rule(fields, ("dedup",), default="exact_duplicates")]
        return [
            self._rule(of_rule or {}, ("dedup", name), default=name)
            for name, of_rule in fields.items()
        ]

    def _rule(
        self, fields: Mapping[str, Any], path: Path_, *, default: str, **defaults: Any
    ) -> CorpusRule | None:
        return self._guarded(lambda: _rule_with_defaults(fields, path, default, defaults), path)

    def _named(
        self, fields: Mapping[str, Any] | None, path: Path_, kind: type[MadeT], *, default: str
    ) -> MadeT | None:
        return self._guarded(lambda: make_named(fields, path, kind, default=default), path)

    def _made(self, cls: type[MadeT], fields: Mapping[str, Any], path: Path_) -> MadeT | None:
        return self._guarded(lambda: make(cls, fields, path), path)

    def _guarded(self, build: Callable[[], MadeT], path: Path_) -> MadeT | None:
        try:
            return build()
        except InvalidComponent as error:
            self.problems += error.problems
        except ConfigError as error:
            self.problems.append(Problem(path, str(error).rstrip(".")))
        return None


def has_several_rules(fields: Mapping[str, Any]) -> bool:
    """Return whether a section names rules, each with its fields, and is not itself one rule."""
    return bool(fields) and all(
        value is None or isinstance(value, dict) for value in fields.values()
    )


def _corpus_work(
    step: str, samples_from: str, rules: Sequence[CorpusRule | None]
) -> CorpusWork | None:
    made = tuple(rule for rule in rules if rule is not None)
    if len(made) < len(rules):
        return None
    return CorpusWork(step=step, samples_from=samples_from, rules=made)


def _linked(split: CorpusRule) -> CorpusRule:
    """Return a split that keeps what was one sample on one side."""
    together = getattr(split, "together", None)
    link = f"{META_PREFIX}{EXPANDED_FROM}"
    if together is None or link in together:
        return split
    return replace(split, together=(*together, link))  # type: ignore[call-arg]


def _optional(clean: MapWork) -> tuple[str, ...]:
    """Return the modalities that cleaning lets samples do without."""
    declared = [stage.optional for stage in clean.stages if isinstance(stage, RequireParts)]
    return declared[-1] if declared else ()


def _rule_with_defaults(
    fields: Mapping[str, Any], path: Path_, default: str, defaults: Mapping[str, Any]
) -> CorpusRule:
    """Build a rule, giving it those of the defaults that it has a field for."""
    name = fields.get("use", default)
    cls = find_class(name, path[:-1] if name == path[-1] else path)
    known = getattr(cls, "__dataclass_fields__", {})
    usable = {name: value for name, value in defaults.items() if name in known}
    made: CorpusRule = make_named({**usable, **fields}, path, CorpusRule, default=default)
    return made
