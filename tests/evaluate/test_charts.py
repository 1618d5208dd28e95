import numpy as np

from mmcore.evaluate.charts import confusion_png, curves_png, curves_svg, funnel_png, read_curves
from mmcore.evaluate.funnel import Level

LOG = b"""{"step": 1, "epoch": 0, "loss": 2.0, "lr": 0.1}
{"step": 2, "epoch": 0, "loss": 1.0, "lr": 0.1}
{"epoch": 0, "val_loss": 1.2, "val_accuracy": 0.5, "val_accuracy_image": 0.4}
"""


def test_training_loss_is_averaged_over_the_epoch() -> None:
    curves = read_curves(LOG)
    assert curves.losses == {"training": [(0.0, 1.5)], "validation": [(0.0, 1.2)]}
    assert curves.accuracies == {"fused": [(0.0, 0.5)], "image": [(0.0, 0.4)]}


def test_charts_are_the_same_bytes_twice() -> None:
    curves = read_curves(LOG)
    matrix = np.array([[3, 1], [0, 2]])
    levels = [Level("ingest", 10, 8, (("dropped", "silent", 2),))]
    for draw in (
        lambda: curves_png(curves),
        lambda: curves_svg(curves).encode(),
        lambda: confusion_png(matrix, ["a", "b"]),
        lambda: funnel_png(levels),
    ):
        assert draw() == draw()


def test_inline_svg_takes_its_colours_from_the_page_and_names_no_address() -> None:
    svg = curves_svg(read_curves(LOG))
    assert svg.startswith("<svg")
    assert "var(--ink)" in svg
    assert "var(--series-1)" in svg
    assert "#0101" not in svg
    assert "#0202" not in svg
    assert "http" not in svg


def test_log_without_any_line_draws_empty_axes() -> None:
    assert curves_png(read_curves(b"")).startswith(b"\x89PNG")
