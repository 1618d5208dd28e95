import json

from mmcore.core.loader import Position


def test_a_position_counts_through_epochs_and_is_json() -> None:
    position = Position()
    seen = []
    for _ in range(7):
        seen.append((position.epoch, position.step))
        position = Position.from_json(json.loads(json.dumps(position.to_json())))
        position = position.after(num_steps=3)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
