"""TensorFlow as this suite runs it: started once, quietly, on CPUs; and what differs by version.

Everything that Keras 2 and Keras 3 want done differently stands in this module.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lenet5.errors import InputError


def check_settings(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Refuses variables under which `tf.keras` is not Keras on TensorFlow.

    Raises:
        InputError: `KERAS_BACKEND` is not tensorflow, or `TF_USE_LEGACY_KERAS` without tf_keras.
    """
    backend = environment.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND is {backend!r}: this suite measures TensorFlow, unset it")
    legacy = environment.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true")
    if legacy and importlib.util.find_spec("tf_keras") is None:
        raise InputError(
            "TF_USE_LEGACY_KERAS is set, but tf_keras is missing: pip install tf-keras, or unset it"
        )


def start_tensorflow(threads: int) -> None:
    """Imports TensorFlow without its log lines, hides GPUs and fixes the number of threads.

    Must be called before anything else imports TensorFlow: threads cannot be set later. With
    `TF_CPP_MIN_LOG_LEVEL` 0 or 1 the log lines are shown: a build that aborts says there why.

    Args:
        threads: threads within an operation, and operations at a time; at least 1.

    Raises:
        InputError: the settings are wrong, TensorFlow is missing, or it runs with other threads.
    """
    check_settings()
    log_level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    if "tensorflow" not in sys.modules:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
    try:
        with contextlib.nullcontext() if log_level in ("0", "1") else _quiet_stderr():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
            with contextlib.suppress(RuntimeError):  # it has started: what it runs with is below
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime, which logs what it finds
            tf.keras.backend.set_floatx("float32")  # these two may stand in keras.json as well
            tf.keras.backend.set_image_data_format("channels_last")
    except Exception as error:  # unlike versions of TensorFlow, NumPy, protobuf raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise InputError("TensorFlow is not installed: pip install tensorflow") from None
        raise InputError(f"TensorFlow cannot be imported: {_reason(error)}") from error
    running = tf.config.threading.get_intra_op_parallelism_threads()
    if running != threads:
        raise InputError(
            f"TensorFlow runs with {running} threads already, {threads} were asked for"
        )


def threads_in_use() -> int:
    """The number of threads that TensorFlow was started with."""
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def keras_version() -> str:
    """Version of the Keras behind `tf.keras`."""
    import tensorflow as tf

    package = tf.keras.Model.__module__.split(".")[0]  # keras, or tf_keras
    return str(importlib.import_module(package).__version__)


def trainable_tensors(model: Any) -> list[Any]:
    """The model's trainable weights as `tf.Variable`s, which Keras 3 wraps in its own."""
    import tensorflow as tf

    return [
        weight if isinstance(weight, tf.Variable) else weight.value
        for weight in model.trainable_variables
    ]


def steps_per_execution(wanted: int) -> int:
    """Steps of `fit` in one call into the graph: what is wanted, or 1 where that miscounts.

    Keras 3.4 reports wrong losses where a call has more steps than batches are left
    (findings/keras_steps_per_execution_remainder.sh); by its source Keras asks since 3.7.
    """
    version = tuple(int(part) for part in keras_version().split(".")[:2])
    return 1 if (3, 0) <= version < (3, 7) else wanted


def restores_best_weights_at_the_end() -> bool:
    """Whether `EarlyStopping` restores the best weights also where the epochs run out first."""
    return not keras_version().startswith("2.")


def weight_averages_callback() -> Any:
    """Puts an optimiser's moving averages into the model for validation and at an epoch's end.

    That is Keras's `SwapEMAWeights(swap_on_epoch=True)`, or its like where Keras has none.
    """
    import tensorflow as tf

    if hasattr(tf.keras.callbacks, "SwapEMAWeights"):
        return tf.keras.callbacks.SwapEMAWeights(swap_on_epoch=True)

    class SwapAverages(tf.keras.callbacks.Callback):  # type: ignore[misc]
        trained: list[Any] | None = None  # the weights while the averages are in their place

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
            if self.trained is not None:
                for weight, value in zip(self.model.trainable_variables, self.trained, strict=True):
                    weight.assign(value)
                self.trained = None

        def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
            weights = self.model.trainable_variables
            self.trained = [tf.identity(weight) for weight in weights]
            # Of the optimiser's public methods this one alone gives the averages.
            self.model.optimizer.finalize_variable_values(weights)

    return SwapAverages()


def save_model(model: Any, path: Path) -> None:
    """Writes a model in Keras's own zip format, which 2.12 must be told to."""
    old = keras_version().startswith("2.12.")
    # In a folder of its own: when it fails, Keras 3.4 leaves its weights beside the file.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        whole = Path(scratch) / path.name
        model.save(str(whole), **({"save_format": "keras_v3"} if old else {}))
        whole.replace(path)


def _reason(error: Exception) -> str:
    """The first line that tells something; TensorFlow's own errors begin with a traceback."""
    told = [line for line in str(error).splitlines() if not line.startswith(("Traceback", " "))]
    return told[0] if told else type(error).__name__


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what is written to descriptor 2, by C++ too; shows it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
