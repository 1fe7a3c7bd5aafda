"""Start of TensorFlow, once, quietly and on one device; differences between its versions.

This module handles every difference between Keras 2 and Keras 3.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lenet5.devices import CPU, Device, check_in_force, restrict_to
from lenet5.errors import InputError


def check_settings(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Rejects variables that replace `tf.keras` or its backend TensorFlow.

    Raises:
        InputError: `KERAS_BACKEND` is not tensorflow, or `TF_USE_LEGACY_KERAS` is set without
            tf_keras.
    """
    backend = environment.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND is {backend!r}: this suite measures TensorFlow, unset it")
    legacy = environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true")
    if legacy and importlib.util.find_spec("tf_keras") is None:
        raise InputError(
            "TF_USE_LEGACY_KERAS is set, but tf_keras is missing: pip install tf-keras, or unset it"
        )


def start_tensorflow(threads: int, device: Device = CPU) -> None:
    """Imports TensorFlow without log lines, for one device, and sets the number of threads.

    Must be called before any other import of TensorFlow: threads cannot be set later. With
    `TF_CPP_MIN_LOG_LEVEL` 0 or 1 the log lines are shown: they explain why a build aborts.

    Args:
        threads: threads within an operation, and number of parallel operations; at least 1.
        device: device to compute on; others are hidden.

    Raises:
        InputError: the settings are invalid, TensorFlow is missing, it has no such device, or it
            runs with another number of threads.
    """
    check_settings()
    log_level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    if "tensorflow" not in sys.modules:
        os.environ.update(device.variables)
        os.environ["KERAS_BACKEND"] = "tensorflow"  # overrides ~/.keras/keras.json
    try:
        with contextlib.nullcontext() if log_level in ("0", "1") else _quiet_stderr():
            import tensorflow as tf

            restrict_to(device)
            with contextlib.suppress(RuntimeError):  # started already: checked below
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime and its log lines
            tf.keras.backend.set_floatx("float32")  # keras.json may set these two as well
            tf.keras.backend.set_image_data_format("channels_last")
            check_in_force(device)
    except InputError:
        raise
    except Exception as error:  # mismatched TensorFlow, NumPy, protobuf raise any error
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise InputError("TensorFlow is not installed: pip install tensorflow") from None
        raise InputError(f"TensorFlow cannot be imported: {_reason(error)}") from error
    running = tf.config.threading.get_intra_op_parallelism_threads()
    if running != threads:
        raise InputError(
            f"TensorFlow runs with {running} threads already, {threads} were requested"
        )


def threads_in_use() -> int:
    """Returns TensorFlow's number of threads."""
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def keras_version() -> str:
    """Returns the version of the Keras behind `tf.keras`."""
    import tensorflow as tf

    package = tf.keras.Model.__module__.split(".")[0]  # keras, or tf_keras
    return str(importlib.import_module(package).__version__)


def trainable_tensors(model: Any) -> list[Any]:
    """Returns the model's trainable weights as `tf.Variable`s, without Keras 3's wrappers."""
    import tensorflow as tf

    return [
        weight if isinstance(weight, tf.Variable) else weight.value
        for weight in model.trainable_variables
    ]


def steps_per_execution(wanted: int) -> int:
    """Returns `fit`'s steps per call into the graph: `wanted`, or 1 for a Keras with a defect.

    Keras 3.4 reports wrong losses if a call has more steps than remaining batches
    (findings/keras_steps_per_execution_remainder.sh). According to its source, Keras checks this
    since 3.7.
    """
    version = tuple(int(part) for part in keras_version().split(".")[:2])
    return 1 if (3, 0) <= version < (3, 7) else wanted


def restores_best_weights_at_the_end() -> bool:
    """Whether `EarlyStopping` also restores the best weights after the last epoch."""
    return not keras_version().startswith("2.")


def weight_averages_callback() -> Any:
    """Puts an optimiser's averages into the model for validation and at an epoch's end.

    The callback is Keras's `SwapEMAWeights(swap_on_epoch=True)`, or an equivalent for older
    versions.
    """
    import tensorflow as tf

    if hasattr(tf.keras.callbacks, "SwapEMAWeights"):
        return tf.keras.callbacks.SwapEMAWeights(swap_on_epoch=True)

    class SwapAverages(tf.keras.callbacks.Callback):  # type: ignore[misc]
        trained: list[Any] | None = None  # trained weights while the averages replace them

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
            if self.trained is not None:
                for weight, value in zip(self.model.trainable_variables, self.trained, strict=True):
                    weight.assign(value)
                self.trained = None

        def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
            weights = self.model.trainable_variables
            self.trained = [tf.identity(weight) for weight in weights]
            # The optimiser's only public method that provides the averages.
            self.model.optimizer.finalize_variable_values(weights)

    return SwapAverages()


@contextlib.contextmanager
def restorable_dropout() -> Iterator[None]:
    """Lets Keras 2 build Dropout layers with random states that can be restored.

    By default, the state of its Dropout is inside TensorFlow's kernel, where no program can read
    it. The Dropout of Keras 3 has a restorable state.
    """
    import tensorflow as tf

    backend = getattr(tf.keras.backend, "experimental", None)
    if backend is None or backend.is_tf_random_generator_enabled():
        yield
        return
    backend.enable_tf_random_generator()
    try:
        yield
    finally:
        backend.disable_tf_random_generator()


def random_states(model: Any) -> list[Any]:
    """Returns the variables with the random states of the model's Dropout layers.

    Args:
        model: model built under `restorable_dropout`.
    """
    states = []
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):  # Keras 3
            states.append(layer.seed_generator.state)
        elif getattr(layer, "_random_generator", None) is not None:
            states.append(layer._random_generator._generator.state)
    return states


def restore(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Assigns the values of a checkpoint to variables of a model and its optimiser.

    Raises:
        InputError: number, shape or type of the values do not fit the variables.
    """
    kinds = [
        [(item.shape, str(item.dtype)) for item in items]
        for items in (read_values(variables), values)
    ]
    if kinds[0] != kinds[1]:
        raise InputError("the checkpoint is damaged, or of another model")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def read_values(variables: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the values of variables as NumPy arrays, for a checkpoint."""
    return tuple(np.array(variable.numpy()) for variable in variables)


def save_model(model: Any, path: Path) -> None:
    """Writes a model in Keras's zip format, which is not the default of Keras 2.12."""
    old = keras_version().startswith("2.12.")
    # In a temporary folder: after a failure, Keras 3.4 leaves its weights next to the file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".partial") as scratch:
        whole = Path(scratch) / path.name
        model.save(str(whole), **({"save_format": "keras_v3"} if old else {}))
        whole.replace(path)


def _reason(error: Exception) -> str:
    """Returns the first informative line; TensorFlow's own errors begin with a traceback."""
    told = [line for line in str(error).splitlines() if not line.startswith(("Traceback", " "))]
    return told[0] if told else type(error).__name__


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides output to descriptor 2, including C++ output; shows it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except InputError:  # has its reason
            raise
        except Exception:
            sys.stderr.flush()
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
