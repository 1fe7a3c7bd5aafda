"""Breakages of the iteration over data in `fit`, `evaluate` and `predict`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.mutations.framework.breakage import (
    Breakage,
    Install,
    arguments_of,
    around,
    everywhere,
)

_SIZE = 32  # default batch size
_SEED = (1, 2)
_BUFFER = 60


def _method(name: str, change: Callable[[Any, dict[str, Any]], Any]) -> Install:
    """Replaces `fit`, `evaluate` or `predict`.

    Args:
        name: name of the method.
        change: receives the original and its arguments by name, including `self`.
    """

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        def make(original: Any) -> Any:
            def method(self: Any, *arguments: Any, **options: Any) -> Any:
                return change(original, arguments_of(original, (self, *arguments), options))

            return method

        around(patch, tf.keras.Model, name, make)

    return install


def _shuffling(
    indices: Callable[[Any, Any], Any], dataset: Callable[[Any, Any, dict[str, Any]], Any]
) -> Install:
    """Changes the order of arrays (Keras shuffles their indices) and of datasets.

    Args:
        indices: receives the original `stateless_shuffle` and a tensor.
        dataset: receives the original `Dataset.shuffle`, a dataset and the arguments by name.
    """

    def install(patch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        tools = tf.random.shuffle, tf.random.experimental.stateless_shuffle
        _, stateless = tools

        def make_indices(_: Any) -> Any:
            return lambda value, *_, **__: indices(stateless, value)

        def make_dataset(original: Any) -> Any:
            def shuffle(self: Any, *arguments: Any, **options: Any) -> Any:
                named = arguments_of(original, (self, *arguments), options)
                return dataset(original, named.pop("self"), named)

            return shuffle

        for tool in tools:  # the second: Keras 3.16
            everywhere(patch, tool, make_indices)
        around(patch, tf.data.Dataset, "shuffle", make_dataset)

    return install


def _few_at_a_time(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def make(original: Any) -> Any:
        def shuffle(self: Any, *arguments: Any, **options: Any) -> Any:
            named = arguments_of(original, (self, *arguments), options)
            return original(**{**named, "buffer_size": min(int(named["buffer_size"]), _BUFFER)})

        return shuffle

    around(patch, tf.data.Dataset, "shuffle", make)


def _same_order(stateless_shuffle: Any, value: Any) -> Any:
    return stateless_shuffle(value, seed=_SEED)


def _some_twice(_: Any, value: Any) -> Any:
    import tensorflow as tf

    count = tf.shape(value)[0]
    return tf.gather(value, tf.random.uniform([count], maxval=count, dtype=tf.int32))


def _some_elements_twice(original: Any, dataset: Any, options: dict[str, Any]) -> Any:
    """Yields one of every two elements twice."""
    import tensorflow as tf

    def one_of_two(*pair: Any) -> Any:
        def pick(values: Any) -> Any:
            return tf.concat([values[:1]] * 2, axis=0)[: tf.shape(values)[0]]

        picked = tf.nest.map_structure(pick, pair)
        return picked if len(picked) > 1 else picked[0]

    count = dataset.cardinality()
    twice = original(dataset, **options).batch(2).map(one_of_two).unbatch()
    return twice.apply(tf.data.experimental.assert_cardinality(count)) if count >= 0 else twice


def _only_whole_batches(original: Any, named: dict[str, Any]) -> Any:
    import tensorflow as tf

    x, size = named["x"], _batch_size(named)
    if isinstance(x, tf.data.Dataset):
        named["x"] = x.filter(lambda *batch: tf.equal(_length(batch), size))
    elif len(x) > size:
        _take(named, slice(len(x) // size * size))
    return original(**named)


def _labels_of_a_batch_shifted(original: Any, named: dict[str, Any]) -> Any:
    import tensorflow as tf

    x, size = named["x"], _batch_size(named)
    if isinstance(x, tf.data.Dataset):

        def shift(index: Any, batch: Any) -> Any:
            labels = tf.cond(index == 0, lambda: tf.roll(batch[1], 1, 0), lambda: batch[1])
            return (batch[0], labels, *batch[2:])

        named["x"] = x.enumerate().map(shift)
    else:
        labels = np.array(named["y"])
        labels[:size] = np.roll(labels[:size], 1, axis=0)
        named["y"] = labels
    return original(**named)


def _validation_in_training(original: Any, named: dict[str, Any]) -> Any:
    import tensorflow as tf

    validation = named.get("validation_data")
    if validation is None:
        return original(**named)
    if isinstance(named["x"], tf.data.Dataset):
        if not isinstance(validation, tf.data.Dataset):
            slices = tf.data.Dataset.from_tensor_slices(tuple(validation))
            validation = slices.batch(_batch_size(named))
        named["x"] = named["x"].concatenate(validation)
    else:
        for name, more in zip(("x", "y"), validation, strict=False):
            named[name] = np.concatenate([named[name], more])
    return original(**named)


def _without_the_last_batch(original: Any, named: dict[str, Any]) -> Any:
    import tensorflow as tf

    # `fit` caches its evaluation dataset; without the cache Keras rebuilds it from the arrays.
    named["_use_cached_eval_dataset"] = False
    x, size = named["x"], _batch_size(named)
    if isinstance(x, tf.data.Dataset):
        named["x"] = x.take(max(1, int(x.cardinality()) - 1))
    elif len(x) > size:
        _take(named, slice((len(x) - 1) // size * size))
    return original(**named)


def _off_by_a_batch(original: Any, named: dict[str, Any]) -> Any:
    outputs, size = original(**named), _batch_size(named)
    return np.roll(outputs, size, axis=0) if len(outputs) > size else outputs


def _small_batch_of_zeros(original: Any, named: dict[str, Any]) -> Any:
    outputs, size = original(**named), _batch_size(named)
    whole = len(outputs) // size * size
    return np.concatenate([outputs[:whole], np.zeros_like(outputs[whole:])])


def _batch_size(named: dict[str, Any]) -> int:
    """Images per batch, or in the first batch of a dataset."""
    import tensorflow as tf

    x = named["x"]
    if isinstance(x, tf.data.Dataset):
        return max((int(_length(batch)) for batch in x.take(1)), default=_SIZE)
    return int(named.get("batch_size") or _SIZE)


def _length(batch: Any) -> Any:
    import tensorflow as tf

    return tf.shape(tf.nest.flatten(batch)[0])[0]


def _take(named: dict[str, Any], places: slice) -> None:
    for name in ("x", "y", "sample_weight"):
        if named.get(name) is not None:
            named[name] = named[name][places]


BREAKAGES = (
    Breakage(
        "nothing is shuffled",
        "shuffling",
        _shuffling(lambda _, value: value, lambda _, dataset, __: dataset),
    ),
    Breakage(
        "the same order in each epoch",
        "shuffling",
        _shuffling(
            _same_order,
            lambda original, dataset, options: original(
                dataset, **{**options, "seed": 1, "reshuffle_each_iteration": False}
            ),
        ),
    ),
    Breakage(
        "images drawn with replacement", "shuffling", _shuffling(_some_twice, _some_elements_twice)
    ),
    Breakage("datasets shuffled 60 images at a time", "shuffling", _few_at_a_time),
    Breakage("fit drops the last small batch", "data", _method("fit", _only_whole_batches)),
    Breakage(
        "labels of one batch shifted by an image",
        "data",
        _method("fit", _labels_of_a_batch_shifted),
    ),
    Breakage(
        "validation images are trained on too", "data", _method("fit", _validation_in_training)
    ),
    Breakage(
        "evaluate leaves the last batch out",
        "evaluation",
        _method("evaluate", _without_the_last_batch),
    ),
    Breakage("predictions off by one batch", "evaluation", _method("predict", _off_by_a_batch)),
    Breakage(
        "predict gives zeros for the last small batch",
        "evaluation",
        _method("predict", _small_batch_of_zeros),
    ),
)
