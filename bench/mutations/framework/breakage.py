"""A breakage of Keras or TensorFlow, and functions that patch the imported modules.

Every patch goes through a `pytest.MonkeyPatch`. It raises if the attribute does not exist, so a
breakage cannot be without effect, and it can be undone.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

Install = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Breakage:
    """A breakage of Keras or TensorFlow.

    Attributes:
        name: description of the breakage in plain words.
        kind: user-visible part, such as `optimiser`.
        install: patches the imported Keras or TensorFlow in place, for either major version.
    """

    name: str
    kind: str
    install: Install


def keras_major() -> int:
    """Returns 2 or 3: the major version of the Keras behind `tf.keras`."""
    from lenet5.runtime import keras_version

    return int(keras_version().split(".")[0])


def keras_module(ending: str) -> Any:
    """Returns the imported module of Keras with this ending of its dotted name.

    Raises:
        LookupError: No module has that ending.
    """
    import tensorflow as tf

    package = tf.keras.Model.__module__.split(".")[0]  # keras, or tf_keras
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and name.endswith(f".{ending}"):
            return module
    raise LookupError(f"{package} has no module {ending}")


def around(
    patch: pytest.MonkeyPatch, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]
) -> None:
    """Replaces a function or method with `make(original)`.

    Raises:
        AttributeError: The owner has no attribute of that name.
    """
    patch.setattr(owner, name, make(getattr(owner, name)))


def everywhere(
    patch: pytest.MonkeyPatch, original: Any, make: Callable[[Any], Callable[..., Any]]
) -> None:
    """Replaces a function in all modules of Keras and TensorFlow and in their registries.

    The new function keeps name, module and signature of the old one, which Keras uses for saving.

    Raises:
        LookupError: No module has the function.
    """
    new = functools.wraps(original)(make(original))
    found = False
    for module in _modules():
        for name, value in list(vars(module).items()):
            if value is original:
                patch.setattr(module, name, new)
                found = True
            elif isinstance(value, dict):
                for key, item in list(value.items()):
                    if item is original:
                        patch.setitem(value, key, new)
                    elif key is original:
                        patch.setitem(value, new, item)
            elif isinstance(value, set) and any(item is original for item in value):
                patch.setattr(module, name, {*value, new})
    if not found:
        raise LookupError(f"no module holds {original}")


def around_gradient(
    patch: pytest.MonkeyPatch, operation: str, make: Callable[[Any], Callable[..., Any]]
) -> None:
    """Replaces TensorFlow's gradient of an operation, in graphs and in eager mode.

    Raises:
        KeyError: The operation has no gradient.
    """
    from tensorflow.python.framework import ops

    gradients = ops.gradient_registry._registry
    entry = gradients[operation]
    patch.setitem(gradients, operation, {**entry, "type": make(entry["type"])})


def arguments_of(function: Any, arguments: Any, options: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name, including positional ones.

    Raises:
        TypeError: The function does not accept them.
    """
    named = dict(inspect.signature(function).bind(*arguments, **options).arguments)
    others = named.pop("kwargs", {})
    return {**named, **others}


def with_attributes(instance: Any, attributes: dict[str, Any], call: Callable[[], Any]) -> Any:
    """Returns the result of a call under temporarily replaced attributes of an object.

    The attributes bypass the object's own `__setattr__`, since Keras tracks assigned values.

    Raises:
        KeyError: The object has no attribute of that name.
    """
    kept = {name: instance.__dict__[name] for name in attributes}
    instance.__dict__.update(attributes)
    try:
        return call()
    finally:
        instance.__dict__.update(kept)


def _modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        top = name.split(".")[0]
        if top in ("keras", "tf_keras", "tensorflow") and isinstance(module, ModuleType):
            yield module
