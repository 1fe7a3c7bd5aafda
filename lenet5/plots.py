"""Plots of a training run: curves, confusion matrix, ROC curves and misclassified digits.

Figures are about 1050 pixels wide, so that a report at natural size has readable text. They use
matplotlib's object-oriented interface: no global state changes, no display is needed, and the last
reference frees a figure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import matplotlib.style
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from lenet5.evaluation import Evaluation, RocCurve
    from lenet5.history import History

DPI = 100
WIDTH_INCHES = 10.5
PLOT_FILES = ("curves.png", "confusion_matrix.png", "roc.png", "errors.png")

TRAINING_COLOUR = "#0072B2"  # blue and vermilion of Okabe & Ito (2008)
VALIDATION_COLOUR = "#D55E00"
FAINT = "#767676"  # lightest grey with a contrast of 4.5 to white
# Nine colours of Paul Tol's "muted" scheme and black, distinct for any colour vision.
DIGIT_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000"),
)
DIGIT_LINES = ("-", "--") * 5

ERROR_COLUMNS = 10
MOST_ERRORS = 60
TILE_INCHES = 0.84  # 3 x 28 pixels: all pixels of a digit have the same size
TILE_HEIGHT_INCHES = 1.35  # including its text


def save_plots(
    directory: Path, history: History, evaluation: Evaluation, images: NDArray[np.uint8]
) -> tuple[Path, ...]:
    """Draws the four plots of a run and writes them as `PLOT_FILES`.

    Args:
        directory: output folder, created if missing; existing plots are replaced.
        history: history of the training.
        evaluation: evaluation of the trained model on `images`.
        images: uint8 (n, 28, 28, 1), in the order of `evaluation`.

    Returns:
        The written paths, in the order of `PLOT_FILES`.

    Raises:
        OSError: a file cannot be written; each file is then complete or unchanged.
        ValueError: the number of `images` differs from `evaluation`.
    """
    # A user's matplotlibrc must not change the plots.
    with matplotlib.style.context("default"):
        figures = (
            curves_figure(history),
            confusion_matrix_figure(evaluation),
            roc_figure(evaluation),
            errors_figure(evaluation, images),
        )
        directory.mkdir(parents=True, exist_ok=True)
        paths = tuple(directory / name for name in PLOT_FILES)
        for figure, path in zip(figures, paths, strict=True):
            _write_png(figure, path)
    return paths


def curves_figure(history: History) -> Figure:
    """Plots accuracy (%) and loss of training and validation images over the epochs.

    Without a finished epoch, the figure is a message.
    """
    if not history.best_epoch:
        return _message_figure("No epoch was finished")
    figure = _figure(4.6)
    accuracy, loss = figure.subplots(1, 2)
    epochs = history.epochs
    _draw_curves(
        accuracy,
        history,
        [100 * epoch.training_accuracy for epoch in epochs],
        [100 * epoch.validation_accuracy for epoch in epochs],
    )
    _draw_curves(
        loss,
        history,
        [epoch.training_loss for epoch in epochs],
        [epoch.validation_loss for epoch in epochs],
    )
    accuracy.set(title="Accuracy", ylabel="images classified correctly (%)")
    loss.set(title="Loss", ylabel="cross-entropy + L2 penalty (nats)")
    best = next(epoch for epoch in epochs if epoch.epoch == history.best_epoch)
    figure.suptitle(
        f"Best epoch (ring): {best.epoch} of {len(epochs)}, validation accuracy "
        f"{100 * best.validation_accuracy:.2f} %, loss {best.validation_loss:.4f}"
    )
    figure.supxlabel(
        "training: mean over the epoch's steps, with the recipe's dropout; "
        "validation: after the epoch, without dropout",
        fontsize=9,
        color=FAINT,
    )
    return figure


def confusion_matrix_figure(evaluation: Evaluation) -> Figure:
    """Plots image counts by true (row) and predicted (column) digit; colour shows the errors.

    The right margin has the recall of each class with its counts, the top margin its precision.
    """
    confusion = np.asarray(evaluation.confusion)
    # On a common colour scale, the hundredfold larger diagonal would hide the errors.
    errors = confusion * ~np.eye(10, dtype=bool)
    norm = Normalize(0, max(5, errors.max()))  # one or two errors never give a dark cell

    figure = _figure(9.0)
    axes = figure.subplots()
    axes.imshow(np.where(errors, errors, np.nan), cmap="Oranges", norm=norm, aspect="auto")
    for true, predicted in np.argwhere(confusion):
        count, correct = confusion[true, predicted], true == predicted
        if correct:
            axes.add_patch(Rectangle((predicted - 0.5, true - 0.5), 1, 1, color="#E4E8EC"))
        colour = "white" if not correct and norm(count) > 0.7 else "black"
        axes.text(
            predicted, true, f"{count:,}", color=colour, ha="center", va="center", fontsize=12
        )
    digits = range(10)
    axes.set(xticks=digits, yticks=digits)
    axes.set_xlabel("predicted digit", fontsize=12)
    axes.set_ylabel("true digit", fontsize=12)
    axes.hlines(np.arange(0.5, 9), -0.5, 9.5, color="#D8D8D8", linewidth=0.6)
    axes.vlines(np.arange(0.5, 9), -0.5, 9.5, color="#D8D8D8", linewidth=0.6)
    axes.tick_params(length=0, labelsize=12)

    right, actual, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(digits, [_recall(right[digit], actual[digit]) for digit in digits])
    recall.set_ylabel("recall: share of a digit's images recognised", color=FAINT)
    precision = axes.secondary_xaxis("top")
    precision.set_xticks(digits, [_percent(right[digit], called[digit]) for digit in digits])
    precision.set_xlabel("precision: share of predictions that are right", color=FAINT, labelpad=6)
    recall.tick_params(length=0)
    precision.tick_params(length=0)
    axes.set_title(f"{_wrong_of(evaluation)}: confusion matrix", fontsize=13)
    return figure


def roc_figure(evaluation: Evaluation) -> Figure:
    """Plots each digit's ROC curve against the rest: whole square and top left corner.

    The corner's side is twice the worst class's equal error rate, rounded up to 1, 2, 5, ... 50 %.
    """
    curves = evaluation.roc_curves
    side = _corner_percent([curve for curve in curves if curve is not None])

    figure = _figure(5.4)
    whole, corner = figure.subplots(1, 2)
    for digit, curve in enumerate(curves):
        style = {"color": DIGIT_COLOURS[digit], "linestyle": DIGIT_LINES[digit]}
        if curve is None:
            whole.plot([], [], label=f"{digit}   no images", linestyle="none")
            continue
        false_positive = 100 * np.asarray(curve.false_positive_rate)
        true_positive = 100 * np.asarray(curve.true_positive_rate)
        whole.plot(false_positive, true_positive, label=f"{digit}   {curve.auc:.5f}", **style)
        corner.plot(false_positive, true_positive, linewidth=2, **style)

    whole.plot([0, 100], [0, 100], color=FAINT, linewidth=0.8, linestyle=":")
    whole.text(30, 27, "chance", color=FAINT, rotation=45, rotation_mode="anchor", va="top")
    whole.add_patch(Rectangle((0, 100 - side), side, side, fill=False, zorder=3))
    whole.legend(title="digit, area under curve", loc="lower right", framealpha=1)
    whole.set(title="Each digit against the rest", xlim=(-2, 102), ylim=(-2, 102))
    corner.set(title=f"The top left corner, {100 / side:,.0f} times enlarged")
    corner.set(xlim=(0, side), ylim=(100 - side, 100 + side / 50))
    corner.locator_params(nbins=5)
    for axes in (whole, corner):
        axes.set(
            xlabel="false positive rate (% of the other digits' images)",
            ylabel="true positive rate (% of the digit's images)",
            box_aspect=1,
        )
        axes.grid(color="#E6E6E6", linewidth=0.8)
    return figure


def errors_figure(evaluation: Evaluation, images: NDArray[np.uint8]) -> Figure:
    """Plots at most `MOST_ERRORS` misclassified digits, most confident errors first.

    Args:
        evaluation: evaluation of the model on `images`.
        images: uint8 (n, 28, 28, 1), in the order of `evaluation`.

    Raises:
        ValueError: the number of `images` differs from `evaluation`.
    """
    if len(images) != evaluation.images:
        raise ValueError(f"{len(images):,} images for an evaluation of {evaluation.images:,}")
    wrong = np.asarray(evaluation.wrong, dtype=np.intp)
    confidence = evaluation.probabilities[wrong, evaluation.predictions[wrong]]
    shown = wrong[np.argsort(-confidence, kind="stable")][:MOST_ERRORS]

    if not len(shown):
        return _message_figure(f"{_wrong_of(evaluation)}: no errors")
    order = f"shown: {len(shown)} most confident" if len(shown) < len(wrong) else "all shown"
    rows = -(-len(shown) // ERROR_COLUMNS)
    height = 0.65 + TILE_HEIGHT_INCHES * rows
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI)
    # One axes object in inches, y downwards: sixty axes would take seconds.
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    for position, index in enumerate(shown):
        row, column = divmod(position, ERROR_COLUMNS)
        left, top = 0.1 + 1.05 * column, 1.05 + TILE_HEIGHT_INCHES * row
        label, prediction = evaluation.labels[index], evaluation.predictions[index]
        percent = 100 * evaluation.probabilities[index, prediction]
        _draw_tile(axes, images[index], left, top, f"{label} → {prediction}\n{percent:.1f} %")
    axes.set(xlim=(0, WIDTH_INCHES), ylim=(height, 0), xticks=[], yticks=[], aspect="auto")
    title = f"{_wrong_of(evaluation)}, {order}\ntrue → predicted, confidence"
    axes.text(WIDTH_INCHES / 2, 0.1, title, ha="center", va="top", fontsize=13)
    return figure


def _figure(height_inches: float) -> Figure:
    return Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")


def _message_figure(message: str) -> Figure:
    figure = _figure(1.2)
    figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=13)
    return figure


def _write_png(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically; equal figures give equal bytes."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial.png")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw_curves(
    axes: Axes, history: History, training: list[float], validation: list[float]
) -> None:
    """Plots one quantity of both image sets, and marks the best epoch's validation value."""
    epochs = [epoch.epoch for epoch in history.epochs]
    best = epochs.index(history.best_epoch)
    # The upper curve's label is above its end, the lower curve's below: they never overlap.
    training_va, validation_va = (
        ("bottom", "top") if training[-1] > validation[-1] else ("top", "bottom")
    )
    series = (
        ("training", training, TRAINING_COLOUR, training_va),
        ("validation", validation, VALIDATION_COLOUR, validation_va),
    )
    for name, values, colour, va in series:
        axes.plot(epochs, values, color=colour, marker="o", markersize=4, label=name)
        axes.annotate(
            name,
            (epochs[-1], values[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va=va,
            annotation_clip=False,
        )
    axes.axvline(history.best_epoch, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)
    axes.plot(
        *(history.best_epoch, validation[best]),
        marker="o",
        markersize=10,
        fillstyle="none",
        color=VALIDATION_COLOUR,
    )
    axes.set(xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_tile(axes: Axes, image: NDArray[np.uint8], left: float, top: float, text: str) -> None:
    """Draws one digit, dark on white, with its text above; `left` and `top` in inches."""
    right, bottom = left + TILE_INCHES, top + TILE_INCHES
    axes.imshow(
        image[..., 0],
        cmap="gray_r",
        interpolation="nearest",
        vmin=0,
        vmax=255,
        extent=(left, right, bottom, top),
    )
    axes.add_patch(Rectangle((left, top), TILE_INCHES, TILE_INCHES, fill=False, color="#B0B0B0"))
    axes.text((left + right) / 2, top - 0.06, text, ha="center", va="bottom", fontsize=11)


def _corner_percent(curves: list[RocCurve]) -> float:
    """Side (%) of the corner that shows the curves' differences: 1, 2, 5, 10, 20 or 50."""
    equal_error = 0.0
    for curve in curves:
        false_positive = np.asarray(curve.false_positive_rate)
        false_negative = 1 - np.asarray(curve.true_positive_rate)
        equal_error = max(equal_error, np.maximum(false_positive, false_negative).min())
    sides = (1.0, 2.0, 5.0, 10.0, 20.0)
    return next((side for side in sides if side >= 200 * equal_error), 50.0)


def _wrong_of(evaluation: Evaluation) -> str:
    return f"{evaluation.errors:,} wrong of {evaluation.images:,}"


def _recall(right: int, images: int) -> str:
    if not images:
        return "no images"
    return f"{_percent(right, images)}   {images - right:,} wrong of {images:,}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"
