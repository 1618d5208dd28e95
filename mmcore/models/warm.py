"""A new model that starts from the weights of one that was trained before."""

from mmcore.errors import ConfigError
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import SavedModel

_CLASS_HEAD = ".classify."
_REFITTED = "fusion."


def start_from(model: MultimodalModel, before: SavedModel) -> None:
    """Give a model the weights of an earlier one; ConfigError where the two are built differently.

    Class heads are matched by the name of the class: a class that is new keeps its fresh weights,
    one that is gone is left behind. The fusion's weights are fitted anew at the end of training.
    """
    weights = model.state_dict()
    known = before.model.state_dict()
    row_before = {name: row for row, name in enumerate(before.labels)}
    misfits = []
    for name, tensor in weights.items():
        if name.startswith(_REFITTED):
            continue
        old = known.get(name)
        if old is not None and _CLASS_HEAD in name and old.shape[1:] == tensor.shape[1:]:
            for row, label in enumerate(model.shape.labels):
                if label in row_before:
                    tensor[row] = old[row_before[label]]
        elif old is not None and old.shape == tensor.shape:
            tensor.copy_(old)
        else:
            misfits.append(name)
    if misfits or not row_before.keys() & set(model.shape.labels):
        what = f"weights {', '.join(misfits[:3])}" if misfits else "no class in common"
        raise ConfigError(
            f"train.start_from: the earlier model is built differently ({what}). Set the recipe's "
            "`retrain.start: scratch`, or train with the model section that it was trained with."
        )
    model.load_state_dict(weights)
