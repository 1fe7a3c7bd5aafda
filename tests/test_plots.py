"""Plots of a run show its numbers, have a readable size, and are written atomically."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color, to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

from lenet5 import plots

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _history(epochs: int, best: int) -> Any:
    """Returns a history with validation above training in accuracy and below it in loss."""
    return SimpleNamespace(
        epochs=tuple(
            SimpleNamespace(
                epoch=epoch,
                training_loss=0.3 + 1 / epoch,
                training_accuracy=0.95 - 0.1 / epoch,
                validation_loss=0.2 + 1 / epoch,
                validation_accuracy=0.985 - 0.1 / epoch,
            )
            for epoch in range(1, epochs + 1)
        ),
        best_epoch=best,
    )


def _evaluation(labels: list[int], predictions: list[int], confidences: list[float]) -> Any:
    """Returns an evaluation with the given confidences; other classes share the rest evenly."""
    actual, predicted = np.array(labels, np.uint8), np.array(predictions)
    confidence = np.array(confidences, np.float32)
    rows = np.arange(len(actual))
    probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    probabilities[rows, predicted] = confidence
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (actual, predicted), 1)
    wrong = np.flatnonzero(actual != predicted)
    return SimpleNamespace(
        labels=actual,
        probabilities=probabilities,
        predictions=predicted,
        images=len(actual),
        errors=len(wrong),
        confusion=confusion,
        wrong=wrong,
        roc_curves=tuple(_roc_curve(0.99) if digit in labels else None for digit in range(10)),
    )


def _roc_curve(true_positive_rate: float, false_positive_rate: float = 0.0) -> Any:
    """Returns a curve with one corner; its equal error rate is at most the larger error."""
    return SimpleNamespace(
        false_positive_rate=np.array([0, false_positive_rate, 1]),
        true_positive_rate=np.array([0, true_positive_rate, 1]),
        auc=0.5 * (1 + true_positive_rate - false_positive_rate),
    )


def _images(count: int) -> Any:
    """Returns images with one grey value each: image i is i everywhere."""
    return np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).reshape(count, 28, 28, 1)


def _three_wrong() -> Any:
    """Returns an evaluation of 30 images, three per digit, with errors 4 -> 9, 7 -> 1, 0 -> 6."""
    labels = [digit for digit in range(10) for _ in range(3)]
    predictions, confidences = list(labels), [0.9] * 30
    for index, prediction, confidence in ((12, 9, 0.6), (21, 1, 0.996), (0, 6, 0.75)):
        predictions[index], confidences[index] = prediction, confidence
    return _evaluation(labels, predictions, confidences)


def _many_wrong(count: int) -> Any:
    """Returns an evaluation with all images taken for the next digit, in rising confidence."""
    labels = [index % 10 for index in range(count)]
    confidences = [0.5 + 0.4 * index / count for index in range(count)]
    return _evaluation(labels, [(label + 1) % 10 for label in labels], confidences)


def _texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def _words(figure: Figure) -> list[str]:
    """Returns every line of text in a figure, without the numbers at the axes."""
    texts: list[Any] = figure.findobj(Text)
    return "\n".join(text.get_text() for text in texts).splitlines()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The plots of a small run."""
    directory = tmp_path_factory.mktemp("run") / "new" / "plots"
    return plots.save_plots(directory, _history(2, best=2), _three_wrong(), _images(30))


# Four files


def test_save_plots_writes_four_readable_pngs(saved: tuple[Path, ...]) -> None:
    """Each is about as wide as the report and not blank; no other file is left."""
    names = [path.name for path in saved]
    assert names == ["curves.png", "confusion_matrix.png", "roc.png", "errors.png"]
    assert sorted(saved[0].parent.iterdir()) == sorted(saved)
    for path in saved:
        pixels = imread(path)
        height, width, _ = pixels.shape
        assert 1000 <= width <= 1100
        assert 200 <= height <= 1000
        assert pixels.std() > 0.01


def test_plots_do_not_depend_on_matplotlibrc(saved: tuple[Path, ...], tmp_path: Path) -> None:
    """Equal runs give equal bytes, and the user's settings do not change."""
    with matplotlib.rc_context({"savefig.dpi": 50, "font.size": 20, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        again = plots.save_plots(tmp_path, _history(2, best=2), _three_wrong(), _images(30))
        assert dict(matplotlib.rcParams) == before

    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in saved]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may become full in the middle of a PNG."""
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    figure = plots.curves_figure(_history(1, best=1))

    def savefig(target: Path, **_: Any) -> None:
        target.write_bytes(b"half of a PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", savefig)
    with pytest.raises(OSError, match="No space left"):
        plots._write_png(figure, path)

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "figure",
    [
        pytest.param(lambda: plots.curves_figure(_history(1, best=1)), id="curves-1"),
        pytest.param(lambda: plots.curves_figure(_history(20, best=17)), id="curves-20"),
        pytest.param(lambda: plots.confusion_matrix_figure(_many_wrong(70)), id="confusion"),
        pytest.param(lambda: plots.roc_figure(_three_wrong()), id="roc"),
        pytest.param(lambda: plots.errors_figure(_many_wrong(70), _images(70)), id="errors"),
    ],
)
def test_nothing_is_cut_off_by_the_figures_edge(figure: Any) -> None:
    """Labels outside the axes are inside the figure."""
    drawn = figure()
    drawn.draw_without_rendering()
    box = drawn.get_tightbbox()
    width, height = drawn.get_size_inches()
    assert -0.01 <= box.x0 < box.x1 <= width + 0.01
    assert -0.01 <= box.y0 < box.y1 <= height + 0.01


# Curves


@pytest.mark.parametrize(("epochs", "best"), [(1, 1), (2, 1), (20, 17)])
def test_curves_show_the_history(epochs: int, best: int) -> None:
    """Lines show the history's values; a ring marks the best epoch's validation value."""
    history = _history(epochs, best)
    accuracy, loss = plots.curves_figure(history).axes

    for axes, scale, quantity in ((accuracy, 100, "accuracy"), (loss, 1, "loss")):
        lines: dict[str, Any] = {str(line.get_label()): line for line in axes.lines}
        for images in ("training", "validation"):
            values = [scale * getattr(epoch, f"{images}_{quantity}") for epoch in history.epochs]
            np.testing.assert_array_equal(lines[images].get_xdata(), range(1, epochs + 1))
            np.testing.assert_allclose(lines[images].get_ydata(), values)
        ring: Any = axes.lines[-1]
        assert ring.get_fillstyle() == "none"
        assert ring.get_xdata() == [best]
        assert ring.get_ydata() == [lines["validation"].get_ydata()[best - 1]]
        assert _texts(axes) == ["training", "validation"]
        assert axes.get_xlabel() == "epoch"
    assert "(%)" in accuracy.get_ylabel()
    assert "L2" in loss.get_ylabel()


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 20])
def test_epoch_ticks_are_whole_numbers(epochs: int) -> None:
    """There is no epoch 1.5."""
    for axes in plots.curves_figure(_history(epochs, best=1)).axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)


def test_labels_of_curves_with_the_same_end_do_not_overlap() -> None:
    """Both curves have a label at their end, even at the same point."""
    history = _history(2, best=2)
    for epoch in history.epochs:
        epoch.training_accuracy, epoch.training_loss = 0.9, 0.4
        epoch.validation_accuracy, epoch.validation_loss = 0.9, 0.4
    figure = plots.curves_figure(history)
    figure.draw_without_rendering()

    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        lower, upper = sorted(boxes, key=lambda box: float(box.y0))
        assert lower.y1 <= upper.y0 + 1


def test_the_title_describes_the_best_epoch() -> None:
    """The title has the numbers at the ring."""
    words = _words(plots.curves_figure(_history(4, best=2)))
    assert "Best epoch (ring): 2 of 4, validation accuracy 93.50 %, loss 0.7000" in words


def test_curves_without_an_epoch_show_a_message() -> None:
    """A run interrupted in its first epoch has a history without epochs."""
    assert "No epoch was finished" in _words(plots.curves_figure(_history(0, best=0)))


# Confusion matrix


def test_confusion_matrix_shows_every_nonzero_count() -> None:
    """Rows are true digits, columns predictions; a zero is an empty cell."""
    evaluation = _three_wrong()
    axes = plots.confusion_matrix_figure(evaluation).axes[0]

    cells = {text.get_position(): text.get_text() for text in axes.texts}
    expected = {
        (predicted, true): str(evaluation.confusion[true, predicted])
        for true, predicted in np.argwhere(evaluation.confusion)
    }
    assert cells == expected
    assert cells[9, 4] == "1"
    assert (4, 9) not in cells
    assert axes.get_title().startswith("3 wrong of 30")
    assert axes.get_xlabel() == "predicted digit"
    assert axes.get_ylabel() == "true digit"


def test_confusion_matrix_colours_only_errors() -> None:
    """The diagonal, a hundred times larger, is not coloured and does not affect the scale."""
    evaluation = _three_wrong()
    evaluation.confusion = np.diag([1000] * 10)
    evaluation.confusion[4, 9] = 20
    image: Any
    (image,) = plots.confusion_matrix_figure(evaluation).axes[0].images

    shown = np.ma.filled(image.get_array().astype(float), np.nan)
    assert np.argwhere(np.isfinite(shown)).tolist() == [[4, 9]]
    assert image.norm.vmax == 20


def test_confusion_matrix_has_recall_and_precision_in_its_margins() -> None:
    """Rates are next to their counts."""
    recall, precision = _margins(_three_wrong())
    wrong, right = "66.7 %   1 wrong of 3", "100.0 %   0 wrong of 3"
    assert recall == [wrong if digit in (0, 4, 7) else right for digit in range(10)]
    assert precision == ["75.0 %" if digit in (1, 6, 9) else "100.0 %" for digit in range(10)]


def test_confusion_matrix_with_missing_classes() -> None:
    """A digit without images or predictions causes no division by zero."""
    recall, precision = _margins(_evaluation([1, 2], [1, 1], [0.9, 0.8]))
    absent = ["no images"] * 7
    assert recall == ["no images", "100.0 %   0 wrong of 1", "0.0 %   1 wrong of 1", *absent]
    assert precision == ["none", "50.0 %", *["none"] * 8]


def _margins(evaluation: Any) -> tuple[list[str], list[str]]:
    """Returns the labels at the right and top of a confusion matrix, by digit."""
    recall, precision = plots.confusion_matrix_figure(evaluation).axes[0].child_axes
    return (
        [label.get_text() for label in recall.get_yticklabels()],
        [label.get_text() for label in precision.get_xticklabels()],
    )


# ROC curves


def test_roc_shows_ten_curves_twice_in_percent() -> None:
    """Whole square and corner have the same lines, distinct by colour and dashes."""
    evaluation = _three_wrong()
    evaluation.roc_curves = tuple(_roc_curve(0.99 + digit / 1000, 0.001) for digit in range(10))
    whole, corner = plots.roc_figure(evaluation).axes

    looks = set()
    for digit in range(10):
        for axes in (whole, corner):
            line: Any = axes.lines[digit]
            np.testing.assert_allclose(line.get_xdata(), [0, 0.1, 100])
            np.testing.assert_allclose(line.get_ydata(), [0, 99 + digit / 10, 100])
            assert same_color(line.get_color(), plots.DIGIT_COLOURS[digit])
        looks.add((to_rgb(line.get_color()), line.get_linestyle()))
    assert len(looks) == 10
    assert "%" in corner.get_xlabel()
    assert "%" in corner.get_ylabel()


def test_roc_legend_has_every_digits_auc() -> None:
    """The AUCs of digits differ in the fourth decimal."""
    legend = plots.roc_figure(_three_wrong()).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{digit}   0.99500" for digit in range(10)
    ]


@pytest.mark.parametrize(
    ("true_positive_rate", "side"),
    [(1.0, 1.0), (0.996, 1.0), (0.993, 2.0), (0.985, 5.0), (0.93, 20.0), (0.5, 50.0)],
)
def test_roc_corner_fits_the_worst_class(true_positive_rate: float, side: float) -> None:
    """The corner is as small as the worst class's bend allows."""
    evaluation = _three_wrong()
    evaluation.roc_curves = (*(_roc_curve(1.0),) * 9, _roc_curve(true_positive_rate))
    corner = plots.roc_figure(evaluation).axes[1]

    assert corner.get_xlim() == (0, side)
    low, high = corner.get_ylim()
    assert low == 100 - side
    assert 100 < high < 100 + side / 10
    assert f"{100 / side:.0f} times" in corner.get_title()


def test_roc_names_a_missing_class() -> None:
    """A missing digit has no curve; the others keep their colours."""
    evaluation = _three_wrong()
    curves = [_roc_curve(0.99) for _ in range(10)]
    curves[7] = None
    evaluation.roc_curves = tuple(curves)
    whole, corner = plots.roc_figure(evaluation).axes

    legend = whole.get_legend()
    assert legend is not None
    assert legend.get_texts()[7].get_text() == "7   no images"
    assert len(corner.lines) == 9
    assert same_color(corner.lines[7].get_color(), plots.DIGIT_COLOURS[8])


def test_roc_without_any_curve_is_drawn() -> None:
    """If all images show one digit, no class has both positives and negatives."""
    evaluation = _evaluation([3, 3], [3, 3], [0.9, 0.9])
    evaluation.roc_curves = (None,) * 10
    words = _words(plots.roc_figure(evaluation))
    assert all(f"{digit}   no images" in words for digit in range(10))


# Misclassified digits


def test_errors_are_in_order_of_confidence_with_labels() -> None:
    """Each tile has the misclassified image with truth, prediction and confidence."""
    (axes,) = plots.errors_figure(_three_wrong(), _images(30)).axes

    *tiles, title = _texts(axes)
    assert tiles == ["7 → 1\n99.6 %", "0 → 6\n75.0 %", "4 → 9\n60.0 %"]
    assert title.startswith("3 wrong of 30, all shown")
    assert [int(np.asarray(image.get_array())[0, 0]) for image in axes.images] == [21, 0, 12]
    for image, text in zip(axes.images, axes.texts[:3], strict=True):
        left, right, _, top = image.get_extent()
        assert text.get_position()[0] == pytest.approx((left + right) / 2)
        assert text.get_position()[1] < top


def test_errors_beyond_sixty_are_counted_but_not_shown() -> None:
    """The title has the total, and says that the most confident errors are shown."""
    (axes,) = plots.errors_figure(_many_wrong(70), _images(70)).axes

    *tiles, title = _texts(axes)
    assert title.startswith("70 wrong of 70, shown: 60 most confident")
    assert len(tiles) == len(axes.images) == 60
    shown = [int(np.asarray(image.get_array())[0, 0]) for image in axes.images]
    assert shown == list(range(69, 9, -1))


def test_a_figure_without_errors_shows_a_message() -> None:
    """An empty figure would look like a failed plot."""
    evaluation = _evaluation([1, 2], [1, 2], [0.9, 0.8])
    assert "0 wrong of 2: no errors" in _words(plots.errors_figure(evaluation, _images(2)))


def test_errors_figure_refuses_images_of_another_set() -> None:
    """Validation images with the test set's errors would be wrong but look plausible."""
    with pytest.raises(ValueError, match="29 images for an evaluation of 30"):
        plots.errors_figure(_three_wrong(), _images(29))
