"""A breakage of Keras or TensorFlow, and the ways to patch them while they are imported.

Every patch goes through a `pytest.MonkeyPatch`: it raises where the attribute is not there, so that
a breakage cannot break nothing, and it can be undone.
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
    """A way in which Keras or TensorFlow could be broken.

    Attributes:
        name: what is broken, in plain words.
        kind: of what a user meets, such as `optimiser`.
        install: patches the imported Keras or TensorFlow in place, whichever major version it is.
    """

    name: str
    kind: str
    install: Install


def keras_major() -> int:
    """2 or 3: the major version of the Keras behind `tf.keras`."""
    from lenet5.runtime import keras_version

    return int(keras_version().split(".")[0])


def keras_module(ending: str) -> Any:
    """The imported module of Keras whose dotted name ends so.

    Raises:
        LookupError: there is none.
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
    """Replaces a function or method by what `make` builds around it.

    Raises:
        AttributeError: the owner has nothing of that name.
    """
    patch.setattr(owner, name, make(getattr(owner, name)))


def everywhere(
    patch: pytest.MonkeyPatch, original: Any, make: Callable[[Any], Callable[..., Any]]
) -> None:
    """Replaces a function in every module of Keras and TensorFlow, and in their tables of names.

    The new function has the old one's name, module and signature, by which Keras saves it.

    Raises:
        LookupError: no module holds it.
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
    """Replaces the gradient that TensorFlow has for an operation, in graphs and outside.

    Raises:
        KeyError: the operation has no gradient.
    """
    from tensorflow.python.framework import ops

    gradients = ops.gradient_registry._registry
    entry = gradients[operation]
    patch.setitem(gradients, operation, {**entry, "type": make(entry["type"])})


def arguments_of(function: Any, arguments: Any, options: Any) -> dict[str, Any]:
    """The arguments of a call by name, also those that were given by place.

    Raises:
        TypeError: the function does not take them.
    """
    named = dict(inspect.signature(function).bind(*arguments, **options).arguments)
    others = named.pop("kwargs", {})
    return {**named, **others}


def with_attributes(instance: Any, attributes: dict[str, Any], call: Callable[[], Any]) -> Any:
    """What a call gives while an object has other attributes; they are its own again afterwards.

    They are written past the object's own `__setattr__`, since Keras tracks what it is given.

    Raises:
        KeyError: the object has no attribute of that name.
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
