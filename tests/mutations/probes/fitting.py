"""Probes of data, evaluation, prediction, early stopping and saving."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from lenet5.runtime import save_model
from tests.mutations.probes.probe import Probe, agree

_layers = tf.keras.layers


class _Seeing(tf.keras.Model):  # type: ignore[misc]
    """A model that keeps what it is given: inputs and targets of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[tuple[np.ndarray, np.ndarray]] = []
        self.tested: list[tuple[np.ndarray, np.ndarray]] = []
        self.compile(run_eagerly=True)

    def call(self, inputs: Any) -> Any:
        return tf.identity(inputs)

    def train_step(self, data: Any) -> dict[str, Any]:
        self.trained.append((data[0].numpy(), data[1].numpy()))
        return {"loss": tf.constant(0.0)}

    def test_step(self, data: Any) -> dict[str, Any]:
        self.tested.append((data[0].numpy(), data[1].numpy()))
        return {"loss": tf.constant(0.0)}


_VALUES = np.arange(50)  # in 6 batches of 8 and one of 2


def _dataset(values: np.ndarray = _VALUES) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((values, values)).shuffle(50).batch(8)


def _fitted(*data: Any, **options: Any) -> list[np.ndarray]:
    """Inputs above and targets below of two epochs, in the order in which they were seen."""
    model = _Seeing()
    size = {} if isinstance(data[0], tf.data.Dataset) else {"batch_size": 8}
    model.fit(*data, epochs=2, verbose=0, **size, **options)
    steps = len(model.trained) // 2
    epochs = (model.trained[:steps], model.trained[steps:])
    return [np.concatenate([np.stack(batch) for batch in epoch], axis=1) for epoch in epochs]


def _both_ways(probe: Callable[[list[np.ndarray]], bool]) -> Probe:
    """Arrays and datasets."""
    return lambda: all(probe(_fitted(*data)) for data in ((_VALUES, _VALUES), (_dataset(),)))


def _each_once(inputs: np.ndarray) -> bool:
    return sorted(inputs) == _VALUES.tolist()


def _orders_repeat() -> bool:
    # Keras 3 repeats the order of arrays by itself once a seed is set: its tool is asked instead.
    first, second = _fitted(_dataset())
    drawn = [tf.random.shuffle(_VALUES).numpy() for _ in range(2)]
    return all(
        (a == b).all() and (a != _VALUES).any() and _each_once(a)
        for a, b in ((first[0], second[0]), drawn)
    )


def _early_ones_come_first() -> bool:
    values = np.arange(200)
    drawn = np.array(list(tf.data.Dataset.range(200).shuffle(200).as_numpy_iterator()))
    early = (drawn[:50] < values[:50] + 60).all()
    return bool(early) and sorted(drawn) == values.tolist() and (drawn != values).any()


def _a_batch_is_shifted(epochs: list[np.ndarray]) -> bool:
    wrong = [np.flatnonzero(inputs != targets) for inputs, targets in epochs]
    few = all(0 < len(places) <= 8 for places in wrong)
    return few and all(_each_once(targets) for _, targets in epochs)


def _validation_is_trained_on() -> bool:
    more = _VALUES[:4] + 100
    epochs = [
        *_fitted(_VALUES, _VALUES, validation_data=(more, more)),
        *_fitted(_dataset(), validation_data=_dataset(more)),
        *_fitted(_dataset(), validation_data=(more, more)),
    ]
    return all(sorted(epoch[0]) == [*_VALUES, *more] for epoch in epochs)


def _last_batch_is_not_tested() -> bool:
    seen = []
    for data in ((_VALUES, _VALUES), (_dataset(),)):
        model = _Seeing()
        model.evaluate(*data, verbose=0, **({"batch_size": 8} if len(data) == 2 else {}))
        seen.append(sum(len(batch[0]) for batch in model.tested))
    model = _Seeing()
    model.fit(_VALUES, _VALUES, validation_data=(_VALUES, _VALUES), batch_size=8, verbose=0)
    return [*seen, sum(len(batch[0]) for batch in model.tested)] == [48, 48, 48]


def _predictions_are(broken: np.ndarray) -> Probe:
    def probe() -> bool:
        dataset = tf.data.Dataset.from_tensor_slices(_VALUES).batch(8)
        arrays = _Seeing().predict(_VALUES, batch_size=8, verbose=0)
        return agree(arrays, broken) and agree(_Seeing().predict(dataset, verbose=0), broken)

    return probe


def _stopped(*fits: list[float]) -> tuple[int, int]:
    """Epochs that the last fit trained, and the weights that it ended with.

    Args:
        fits: validation losses of each fit with the same callback; the training loss falls. After
            an epoch, counted from 1, the model's one weight is that number, and 10 more a fit.
    """
    callback = tf.keras.callbacks.EarlyStopping(
        "val_loss", patience=1, mode="min", restore_best_weights=True
    )
    weights = [0]
    model = SimpleNamespace(
        get_weights=lambda: list(weights),
        set_weights=lambda new: weights.__setitem__(0, new[0]),
        stop_training=False,
    )
    callback.set_model(model)
    epoch = 0
    for fit, losses in enumerate(fits):
        model.stop_training = False
        callback.on_train_begin()
        for epoch, loss in enumerate(losses, start=1):
            weights[0] = 10 * fit + epoch
            callback.on_epoch_end(epoch - 1, {"val_loss": loss, "loss": -float(epoch)})
            if model.stop_training:
                break
        callback.on_train_end()
    return epoch, weights[0]


def _stops_with(epochs: int, weights: int, *fits: list[float]) -> Probe:
    return lambda: _stopped(*fits) == (epochs, weights)


_KEPT = (1.001, 2.001, 3.001, 4.001)


def _saved(whole: bool = True) -> tuple[list[float], list[float]]:
    """Weights of a model after it was saved, and of another one that was made of the file."""
    model = tf.keras.Sequential([tf.keras.Input((1,)), _layers.Dense(1), _layers.Dense(1)])
    shapes = ((1, 1), (1,)) * 2
    model.set_weights([np.full(shape, v) for shape, v in zip(shapes, _KEPT, strict=True)])
    with tempfile.TemporaryDirectory() as folder:
        if whole:
            save_model(model, Path(folder) / "model.keras")
            loaded = tf.keras.models.load_model(str(Path(folder) / "model.keras"))
        else:
            model.save_weights(str(Path(folder) / "model.weights.h5"))
            loaded = tf.keras.models.clone_model(model)
            loaded.load_weights(str(Path(folder) / "model.weights.h5"))
    return _numbers(model), _numbers(loaded)


def _numbers(model: Any) -> list[float]:
    return [float(weight.flat[0]) for weight in model.get_weights()]


def _loaded_are(*broken: float) -> Probe:
    return lambda: all(
        agree(before, _KEPT) and agree(loaded, broken)
        for before, loaded in (_saved(whole=True), _saved(whole=False))
    )


PROBES: dict[str, Probe] = {
    "nothing is shuffled": _both_ways(lambda epochs: all(agree(e[0], _VALUES) for e in epochs)),
    "the same order in each epoch": _orders_repeat,
    "images drawn with replacement": _both_ways(
        lambda epochs: all(len(e[0]) == 50 and not _each_once(e[0]) for e in epochs)
    ),
    "datasets shuffled 60 images at a time": _early_ones_come_first,
    "fit drops the last small batch": _both_ways(
        lambda epochs: all(len(set(e[0])) == 48 for e in epochs)
    ),
    "labels of one batch shifted by an image": _both_ways(_a_batch_is_shifted),
    "validation images are trained on too": _validation_is_trained_on,
    "evaluate leaves the last batch out": _last_batch_is_not_tested,
    "predictions off by one batch": _predictions_are(np.roll(_VALUES, 8)),
    "predict gives zeros for the last small batch": _predictions_are(
        np.where(_VALUES < 48, _VALUES, 0)
    ),
    "EarlyStopping keeps the last weights": _stops_with(2, 2, [1, 2]),
    "EarlyStopping waits one epoch longer": _stops_with(3, 1, [1, 2, 3, 4]),
    "EarlyStopping watches the training loss": _stops_with(4, 4, [1, 2, 3, 4]),
    "EarlyStopping never stops": lambda: _stopped([1, 2, 3, 4])[0] == 4,
    "EarlyStopping goes on where the last fit ended": _stops_with(2, 1, [1, 2], [5, 4, 3]),
    "loaded weights rounded to float16": _loaded_are(*np.array(_KEPT, np.float16)),
    "loading loses the first bias": _loaded_are(1.001, 0.0, 3.001, 4.001),
    "saving leaves the last bias out": _loaded_are(1.001, 2.001, 3.001, 0.0),
}
