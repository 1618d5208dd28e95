"""Whether a dataset can be trained on: asked before the first rank starts, and by every rank."""

from mmcore.core.loader import Loader, OpenLoader
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, StepError
from mmcore.train.config import TrainConfig

TRAIN_SPLIT = "train"


def check_data(loader: Loader, inputs: Inputs, config: TrainConfig) -> None:
    """Raise the error that ranks would end with: no label, too few samples, nothing to mix."""
    dataset = loader.open(inputs)
    try:
        labels_of(dataset)
        steps_per_epoch(dataset, config)
    finally:
        dataset.close()


def labels_of(dataset: OpenLoader) -> tuple[str, ...]:
    """Return the names of the classes; StepError without any."""
    labels = tuple(dataset.labels)
    if not labels:
        raise StepError(
            "no sample of the dataset has a label, and the model has class heads. Set label_from "
            "in the source's layout, or loader.label_field."
        )
    return labels


def steps_per_epoch(dataset: OpenLoader, config: TrainConfig) -> int:
    """Return how many batches an epoch has; ConfigError when it has not even one."""
    num_steps = dataset.num_steps(TRAIN_SPLIT, global_batch_size=config.global_batch_size)
    if num_steps == 0:
        num_samples = len(dataset.samples(TRAIN_SPLIT))
        raise ConfigError(
            f"train.global_batch_size={config.global_batch_size} is more than the {num_samples} "
            f"samples of the split {TRAIN_SPLIT!r}. Use {num_samples} or less."
        )
    return num_steps
