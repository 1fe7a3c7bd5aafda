"""TensorFlow starts once and quietly, with the expected Keras settings."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec

import pytest
import tensorflow as tf

from lenet5 import runtime
from lenet5.devices import CPU, Device
from lenet5.errors import InputError


class BrokenTensorFlow:
    """Makes `import tensorflow` write to descriptor 2, like C++ code, and raise an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "tensorflow":
            os.write(2, b"the loader's words\n")
            raise self.error


def start_broken(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, device: Device = CPU
) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(sys, "meta_path", [BrokenTensorFlow(error), *sys.meta_path])
    runtime.start_tensorflow(1, device)


@pytest.mark.parametrize(
    "environment", [{}, {"KERAS_BACKEND": "tensorflow"}, {"KERAS_BACKEND": ""}]
)
def test_tensorflow_is_the_default_backend(
    environment: dict[str, str],
) -> None:
    runtime.check_settings(environment)


def test_another_backend_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        runtime.check_settings({"KERAS_BACKEND": "jax"})
    assert str(caught.value) == "KERAS_BACKEND is 'jax': this suite measures TensorFlow, unset it"


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_legacy_keras_without_its_package_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        runtime.check_settings({"TF_USE_LEGACY_KERAS": value})
    assert str(caught.value) == (
        "TF_USE_LEGACY_KERAS is set, but tf_keras is missing: pip install tf-keras, or unset it"
    )


@pytest.mark.parametrize(("value", "installed"), [("1", True), ("0", False), ("", False)])
def test_legacy_keras_is_accepted_if_installed_or_not_requested(
    value: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("tf_keras", None) if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    runtime.check_settings({"TF_USE_LEGACY_KERAS": value})


def test_starting_again_with_the_same_threads_changes_nothing() -> None:
    threads = runtime.threads_in_use()
    runtime.start_tensorflow(threads)
    assert (
        runtime.threads_in_use()
        == threads
        == tf.config.threading.get_inter_op_parallelism_threads()
    )


def test_starting_again_with_other_threads_is_refused() -> None:
    threads = runtime.threads_in_use()
    with pytest.raises(InputError) as caught:
        runtime.start_tensorflow(threads + 1)
    assert str(caught.value) == (
        f"TensorFlow runs with {threads} threads already, {threads + 1} were requested"
    )
    assert runtime.threads_in_use() == threads


def test_gpus_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden: list[tuple[list[object], str]] = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *what: hidden.append(what))
    runtime.start_tensorflow(runtime.threads_in_use())
    assert hidden == [([], "GPU")]
    assert tf.config.get_visible_devices("GPU") == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_users_keras_json_is_overridden() -> None:
    """Keras reads float type and image format from it; LeNet-5 needs fixed values."""
    backend = tf.keras.backend
    backend.set_floatx("float16")
    backend.set_image_data_format("channels_first")
    runtime.start_tensorflow(runtime.threads_in_use())
    assert (backend.floatx(), backend.image_data_format()) == ("float32", "channels_last")


def test_keras_version_is_that_of_the_keras_in_use() -> None:
    package = "tf_keras" if os.environ.get("TF_USE_LEGACY_KERAS") == "1" else "keras"
    assert runtime.keras_version() == importlib.import_module(package).__version__


def test_missing_tensorflow_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        start_broken(monkeypatch, ModuleNotFoundError("No module", name="tensorflow"))
    assert str(caught.value) == "TensorFlow is not installed: pip install tensorflow"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'wrapt'", name="wrapt"), "No module named 'wrapt'"),
        (
            ImportError(
                "Traceback (most recent call last):\n  File x\nImportError: libx.so\n\nSee"
            ),
            "ImportError: libx.so",
        ),
        (
            TypeError("Descriptors cannot be created directly.\nIf"),
            "Descriptors cannot be created directly.",
        ),
        (AttributeError(), "AttributeError"),
    ],
)
def test_a_failed_import_of_tensorflow_gives_a_one_line_error(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as caught:
        start_broken(monkeypatch, error)
    assert str(caught.value) == f"TensorFlow cannot be imported: {reason}"


def test_output_of_a_failed_import_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError):
        start_broken(monkeypatch, ImportError("no"))
    assert capfd.readouterr().err == "the loader's words\n"


def test_output_of_an_interrupted_import_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        start_broken(monkeypatch, KeyboardInterrupt())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("level", "shown"), [("0", "words\n"), ("2", ""), ("3", "")])
def test_descriptor_2_is_silent_unless_the_log_level_shows_lines(
    level: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: os.write(2, b"words\n"))
    runtime.start_tensorflow(runtime.threads_in_use())
    assert capfd.readouterr().err == shown
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
