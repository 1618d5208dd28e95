"""What a training is at one moment, as named tensors: to keep, to put back, and to share out anew.

Every engine holds its float32 weights in partitions: flat tensors that optimizers step. A
partition says which slices of which parameters it is; so states of different numbers of ranks, and
of different stages of ZeRO, are told in the same words.
"""

import base64
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmcore.errors import IntegrityError
from mmcore.sample import Json

MASTER = "master"
"""The kind of the float32 weights; the others are the optimizer's own names for its moments."""
EMA = "ema"
BUFFER = "buffer"
LAYOUT_VERSION = 1

ReadSlice = Callable[[str, str, int, int], Tensor]
"""`read(kind, parameter, start, count)`: a flat piece of a whole parameter, its moment or a
buffer."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Where a piece of a parameter lies in a partition; counted in elements."""

    parameter: str
    shape: tuple[int, ...]
    """Of the whole parameter."""
    start: int
    """In the parameter, flattened."""
    at: int
    """In the partition."""
    count: int


@dataclass(frozen=True)
class Partition:
    """A float32 tensor that an optimizer steps, and what it is a part of."""

    name: str
    master: Tensor
    slices: tuple[Slice, ...]

    def clear_padding(self) -> None:
        """Set to 0 what no parameter lies in: ZeRO-3 leaves there whatever was in memory."""
        flat, end = self.master.detach().view(-1), 0
        for piece in self.slices:
            flat[end : piece.at].zero_()
            end = piece.at + piece.count
        flat[end:].zero_()


@dataclass
class TrainingState:
    """The tensors and numbers of one rank, whatever the engine.

    `refresh` brings the weights that the model computes with in line with the masters.
    """

    module: nn.Module
    partitions: Sequence[Partition]
    optimizer: torch.optim.Optimizer
    refresh: Callable[[], None]
    is_shared: bool
    """Whether every rank holds the same: no ZeRO."""
    ema_decay: float = 0.0
    _ema: list[Tensor] = field(default_factory=list)
    _num_averaged: int = 0
    _shows_ema: bool = False

    def __post_init__(self) -> None:
        for partition in self.partitions:
            partition.clear_padding()
        if self.ema_decay:
            self._ema = [partition.master.detach().clone() for partition in self.partitions]

    @property
    def kinds(self) -> list[str]:
        """Return what is kept of a parameter: `master`, the optimizer's moments, `ema`."""
        moments = {
            kind
            for partition in self.partitions
            for kind, value in self.optimizer.state.get(partition.master, {}).items()
            # where a weight has one element, a count of steps has the shape of a moment
            if kind != "step" and isinstance(value, Tensor)
        }
        return [MASTER, *sorted(moments), *([EMA] if self._ema else [])]

    def tensors(self) -> dict[str, Tensor]:
        """Return the live tensors by name, `<kind>/<partition>` and `buffer/<name>`.

        They change with the next step: who wants to keep them copies them first.
        """
        self.show_average(shown=False)
        found: dict[str, Tensor] = {}
        for index, partition in enumerate(self.partitions):
            found[f"{MASTER}/{partition.name}"] = partition.master.detach()
            state = self.optimizer.state.get(partition.master, {})
            for kind in self.kinds:
                if kind in state:
                    found[f"{kind}/{partition.name}"] = state[kind]
            if self._ema:
                found[f"{EMA}/{partition.name}"] = self._ema[index]
        return found | {f"{BUFFER}/{name}": value for name, value in self._buffers()}

    def layout(self) -> dict[str, Json]:
        """Return what `tensors` are, in JSON: which slices of which whole parameters."""
        return {
            "version": LAYOUT_VERSION,
            "is_shared": self.is_shared,
            "kinds": list(self.kinds),
            "partitions": {
                partition.name: [asdict(piece) | {"shape": list(piece.shape)} for piece in pieces]
                for partition in self.partitions
                for pieces in [partition.slices]
            },
            "buffers": {name: list(value.shape) for name, value in self._buffers()},
        }

    def scalars(self) -> dict[str, Json]:
        """Return the numbers that belong to the tensors."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "steps": {p.name: step for p in self.partitions if (step := self._step(p)) is not None},
            "num_averaged": self._num_averaged,
            "rng": [_text(state) for state in (torch.get_rng_state(), *cuda)],
        }

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `tensors` and `scalars` gave, bit for bit, in an engine of the same kind.

        IntegrityError when a tensor is missing or has another shape; then nothing is changed.
        """
        self._check(tensors)
        kinds = sorted({name.split("/", 1)[0] for name in tensors} - {MASTER, EMA, BUFFER})

        def of(partition: Partition, kind: str) -> Tensor | None:
            return tensors.get(f"{kind}/{partition.name}")

        self._fill(of, kinds, {str(k): float(v) for k, v in facts["steps"].items()})
        with torch.no_grad():
            for name, value in self._buffers():
                value.copy_(tensors[f"{BUFFER}/{name}"])
        self._num_averaged = int(facts["num_averaged"])
        own, *cuda = (_tensor(text) for text in facts["rng"])
        torch.set_rng_state(own)
        if cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(cuda)
        self.refresh()

    def load_whole(self, read: ReadSlice, kinds: Collection[str], facts: Mapping[str, Any]) -> None:
        """Fill this rank's part from whole parameters, whatever number of ranks they come from.

        `facts` are the scalars of any rank of the earlier run. Random generators are left alone:
        there may be more of them now.
        """

        def of(partition: Partition, kind: str) -> Tensor:
            flat = torch.zeros(partition.master.numel(), dtype=partition.master.dtype)
            for piece in partition.slices:
                values = read(kind, piece.parameter, piece.start, piece.count)
                flat[piece.at : piece.at + piece.count] = values
            return flat.view_as(partition.master)

        step = max((float(value) for value in facts["steps"].values()), default=None)
        steps = {} if step is None else {partition.name: step for partition in self.partitions}
        self._fill(of, sorted(set(kinds) - {MASTER, EMA, BUFFER}), steps, has_ema=EMA in kinds)
        with torch.no_grad():
            for name, value in self._buffers():
                value.copy_(read(BUFFER, name, 0, value.numel()).view_as(value))
        self._num_averaged = int(facts["num_averaged"])
        self.refresh()

    def average(self) -> None:
        """Move the averages towards the weights; after each step."""
        if not self._ema:
            return
        self._num_averaged += 1
        # a short run would otherwise stay near its random first weights
        decay = min(self.ema_decay, (1 + self._num_averaged) / (10 + self._num_averaged))
        for average, partition in zip(self._ema, self.partitions, strict=True):
            average.lerp_(partition.master.detach(), 1 - decay)

    def show_average(self, *, shown: bool) -> None:
        """Let the model compute with the averages, or with its own weights again."""
        if not self._ema or shown == self._shows_ema:
            return
        for average, partition in zip(self._ema, self.partitions, strict=True):
            own = partition.master.detach().clone()
            partition.master.detach().copy_(average)
            average.copy_(own)
        self._shows_ema = shown
        self.refresh()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model compute with the averages for a while."""
        before = self._shows_ema
        self.show_average(shown=True)
        yield
        self.show_average(shown=before)

    def _fill(
        self,
        of: Callable[[Partition, str], Tensor | None],
        kinds: Collection[str],
        steps: Mapping[str, float],
        *,
        has_ema: bool = True,
    ) -> None:
        self._shows_ema = False
        for index, partition in enumerate(self.partitions):
            master = partition.master
            values = of(partition, MASTER)
            assert values is not None, "checked before"
            master.detach().copy_(values)
            state = {
                kind: values.to(master.device, copy=True)
                for kind in kinds
                if (values := of(partition, kind)) is not None
            }
            if partition.name in steps:
                state["step"] = self._step_tensor(master, steps[partition.name])
            if state:
                self.optimizer.state[master] = state
            else:
                self.optimizer.state.pop(master, None)
            if self._ema:
                averages = of(partition, EMA) if has_ema else None
                self._ema[index].copy_(master.detach() if averages is None else averages)

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        wanted = {f"{MASTER}/{p.name}": p.master.shape for p in self.partitions}
        wanted |= {f"{BUFFER}/{name}": value.shape for name, value in self._buffers()}
        for name, shape in wanted.items():
            if name not in tensors:
                raise IntegrityError(
                    f"the saved state lacks {name}, so it is not of this model, engine and number "
                    "of ranks. Resume with those that wrote it, or from the whole parameters."
                )
            if tensors[name].shape != shape:
                raise IntegrityError(
                    f"{name} has the shape {tuple(tensors[name].shape)} in the saved state and "
                    f"{tuple(shape)} here. Resume with the model and the number of ranks that "
                    "wrote it, or from the whole parameters."
                )

    def _step(self, partition: Partition) -> float | None:
        step = self.optimizer.state.get(partition.master, {}).get("step")
        return None if step is None else float(step)

    def _step_tensor(self, master: Tensor, step: float) -> Tensor:
        is_fused = bool(self.optimizer.defaults.get("fused"))
        device = master.device if is_fused else torch.device("cpu")
        return torch.tensor(step, dtype=torch.float32, device=device)

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers that belong to the weights: statistics of batches."""
        kept = self.module.state_dict(keep_vars=True).keys()
        for name, value in self.module.named_buffers():
            if name in kept:
                yield name, value


def whole_reader(
    layouts: Sequence[Mapping[str, Any]], read: Callable[[int, str, int, int], Tensor]
) -> ReadSlice:
    """Return a reader of whole parameters over the states of all ranks of an earlier run.

    `layouts` are those of its ranks in order; `read(rank, tensor, start, count)` gives a flat piece
    of one of a rank's tensors. Of statistics of batches the mean over the ranks is taken.
    """
    pieces: dict[str, list[tuple[int, str, int, int, int]]] = {}
    # where all ranks hold the same, one is enough
    ranks = range(1) if layouts[0]["is_shared"] else range(len(layouts))
    for rank in ranks:
        for name, slices in layouts[rank]["partitions"].items():
            for one in slices:
                where = (one["start"], name, rank, one["at"], one["count"])
                pieces.setdefault(one["parameter"], []).append(where)
    for found in pieces.values():
        found.sort()

    def read_slice(kind: str, parameter: str, start: int, count: int) -> Tensor:
        if kind == BUFFER:
            tensors = [read(r, f"{BUFFER}/{parameter}", 0, count) for r in range(len(layouts))]
            if not tensors[0].is_floating_point():
                return tensors[0]
            return torch.stack(tensors).mean(dim=0)
        if parameter not in pieces:
            raise IntegrityError(
                f"the saved state has no parameter {parameter}, so it is of another model. "
                "Resume with the model that wrote it."
            )
        read_parts: list[Tensor] = []
        at = start
        for first, name, rank, offset, held in pieces[parameter]:
            end = min(first + held, start + count)
            if first <= at < end:
                read_parts.append(read(rank, f"{kind}/{name}", offset + at - first, end - at))
                at = end
        if at != start + count:
            raise IntegrityError(
                f"the saved state holds {parameter} to element {at} and {start + count} were "
                "wanted. A rank's part is missing, or the parameter has another size now."
            )
        return torch.cat(read_parts) if read_parts else torch.empty(0)

    return read_slice


def _text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
