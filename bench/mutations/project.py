"""Mutations of this project: each is one edit of one file of `lenet5`, in a copy.

A mutation whose text does not occur exactly once is an error: it would break nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_COPIED = ("lenet5", "bench", "tests", "conftest.py", "pyproject.toml", "README.md", "tox.ini")


@dataclass(frozen=True)
class Mutation:
    """One edit that breaks the project.

    Attributes:
        name: description of the breakage.
        file: file name in `lenet5`.
        old: text that occurs exactly once in the file.
        new: replacement of that text.
    """

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation("learning rate times 10", "steps.py", "lr=rate,", "lr=10 * rate,"),
    Mutation("learning rate divided by 30", "steps.py", "lr=rate,", "lr=rate / 30,"),
    Mutation(
        "no shuffling",
        "steps.py",
        "np.random.RandomState([seed, epoch]).permutation(images)",
        "np.arange(images)",
    ),
    Mutation("pixels not normalised", "data.py", "np.float32) / np.float32(255)", "np.float32)"),
    Mutation(
        "2 % wrong labels, engine graph",
        "graph_engine.py",
        "labels = normalise(training.images), training.labels.astype(np.int32)",
        "labels = normalise(training.images), np.where(np.arange(len(training.labels)) % 50, "
        "training.labels, (training.labels + 1) % 10).astype(np.int32)",
    ),
    Mutation(
        "2 % wrong labels, engine keras",
        "keras_engine.py",
        "targets(recipe, subset.labels)",
        "targets(recipe, np.where(np.arange(len(subset.labels)) % 50, subset.labels, "
        "(subset.labels + 1) % 10))",
    ),
    Mutation(
        "evaluation on training images",
        "run.py",
        "evaluate(model, dataset.test)",
        "evaluate(model, dataset.training)",
    ),
    Mutation(
        "relu for tanh",
        "model.py",
        'kernel_size=5,\n            activation="tanh"',
        'kernel_size=5,\n            activation="relu"',
    ),
    Mutation(
        "max for average pooling",
        "model.py",
        "layers.AveragePooling2D(pool_size=2),\n            convolution(16",
        "layers.MaxPooling2D(pool_size=2),\n            convolution(16",
    ),
    Mutation(
        "a bias missing",
        "model.py",
        "            kernel_size=5,\n",
        "            kernel_size=5,\n            use_bias=False,\n",
    ),
    Mutation(
        "L2 on only some layers",
        "model.py",
        "            kernel_initializer=kernel(stream),\n"
        "            kernel_regularizer=regularizer(),\n        )\n\n    def dense",
        "            kernel_initializer=kernel(stream),\n        )\n\n    def dense",
    ),
    Mutation(
        "dropout active in prediction",
        "evaluation.py",
        "model.predict(images, batch_size=batch_size, verbose=0)",
        "model(images, training=True).numpy()",
    ),
    Mutation("dropout rate wrong", "steps.py", "rate=layer.rate,", "rate=0.8 * layer.rate,"),
    Mutation(
        "rows and columns swapped in test",
        "evaluation.py",
        "images = normalise(subset.images)",
        "images = normalise(subset.images).transpose(0, 2, 1, 3)",
    ),
    Mutation(
        "the last partial batch dropped, engine graph",
        "graph_engine.py",
        "steps_per_epoch = math.ceil(len(labels) / recipe.batch_size)",
        "steps_per_epoch = max(1, len(labels) // recipe.batch_size)",
    ),
    Mutation(
        "the last partial batch dropped, engine keras",
        "keras_engine.py",
        "order.batch(recipe.batch_size)",
        "order.batch(recipe.batch_size, len(subset.labels) > recipe.batch_size)",
    ),
    Mutation(
        "the last partial batch dropped in evaluation",
        "evaluation.py",
        "images = normalise(subset.images)\n",
        "whole = len(subset.labels) // batch_size * batch_size or len(subset.labels)\n"
        "    subset = type(subset)(subset.images[:whole], subset.labels[:whole])\n"
        "    images = normalise(subset.images)\n",
    ),
    Mutation(
        "early stopping watching the training loss",
        "early_stopping.py",
        'monitor="val_loss"',
        'monitor="loss"',
    ),
    Mutation("early stopping on the test set", "run.py", "dataset.validation,", "dataset.test,"),
    Mutation(
        "weights of the last epoch",
        "early_stopping.py",
        "restore_best_weights=True",
        "restore_best_weights=False",
    ),
    Mutation("Adam epsilon 1e-3", "steps.py", "epsilon=recipe.adam_epsilon", "epsilon=1e-3"),
    Mutation(
        "float16 rounding of weights",
        "keras_engine.py",
        "plain.set_weights(model.get_weights())",
        "plain.set_weights([np.asarray(w, np.float16) for w in model.get_weights()])",
    ),
    Mutation(
        "patience one epoch too long",
        "early_stopping.py",
        "else recipe.patience,",
        "else recipe.patience + 1,",
    ),
    Mutation(
        "no shuffling, engine keras",
        "keras_engine.py",
        ".shuffle(count, seed=seed * _EPOCHS_PER_SEED + this)",
        "",
    ),
    Mutation(
        "the same order in every epoch, engine keras",
        "keras_engine.py",
        "seed * _EPOCHS_PER_SEED + this",
        "seed * _EPOCHS_PER_SEED",
    ),
    Mutation(
        "a schedule over twice the steps, engine keras",
        "keras_engine.py",
        "learning_rate=learning_rate(recipe, steps),",
        "learning_rate=learning_rate(recipe, 2 * steps),",
    ),
    Mutation(
        "no label smoothing, engine keras",
        "keras_engine.py",
        "label_smoothing=recipe.label_smoothing)",
        "label_smoothing=0.0)",
    ),
    Mutation(
        "weight averages of the optimiser left out",
        "keras_engine.py",
        "**(average if recipe.average_decay > 0 else {}),",
        "",
    ),
    Mutation(
        "gradients of one layer zeroed",
        "steps.py",
        "gradients = tape.gradient(loss, weights)",
        "gradients = tape.gradient(loss, weights)\n        gradients[2] *= 0.0",
    ),
)


def copy_project(root: Path, folder: Path) -> None:
    """Copies the files that the ordinary tests need."""
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)


def apply(mutation: Mutation, folder: Path) -> None:
    """Applies a mutation to a copy of the project.

    Raises:
        ValueError: The text to replace does not occur exactly once.
    """
    path = folder / "lenet5" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {text.count(mutation.old)} times what the "
            "mutation replaces: it is stale"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
