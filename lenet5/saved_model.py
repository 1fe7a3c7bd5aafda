"""Checks a model file before Keras loads it, and gives Keras a copy that cannot run code.

Keras creates any object that a file names, from its own modules or any importable module. The copy
therefore has only content known to be harmless, written anew:

- Layers, initialisers, regularisers, constraints and dtype policies: only those listed below.
- Activations: only names listed below; a function of TensorFlow or Keras becomes its name.
- `compile_config` (optimiser, loss, metrics): omitted. Scoring does not need it, and Keras 2.12 to
3.16 creates it for a nested model even with `compile=False`. `activity_regularizer` is omitted too:
its loss matters only in training steps.
- Members of the archive: config.json, metadata.json, model.weights.h5. At least Keras 2.12 to 3.4
unpickle a model.weights.npz, and unpack all other members to disk.
- Weights: numbers of limited size within their own file. HDF5 reads other files through links and
through external or virtual data, and a short file may announce any amount of zeros.
- Sizes of layers: limited, since Keras creates a layer before it reads the weights.
- HDF5, written by Keras 2.12 under the name `.keras`: Keras 2 reads it without a safe mode.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lenet5.errors import InputError
from lenet5.runtime import keras_version

if TYPE_CHECKING:
    import h5py

LARGEST_FILE = 2**30  # bytes, unpacked; LeNet-5 with two averages per weight has half a million
LARGEST_CONFIG = 2**20  # bytes; LeNet-5's has 2**13
LARGEST_SIDE = 2**13  # units, filters or pixels of a layer; LeNet-5's largest is 120
MOST_CALLS = 2_000  # of layers; LeNet-5 has 12
MOST_OBJECTS = 20_000  # groups and arrays of weights; LeNet-5 has 50

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_HDF5 = b"\x89HDF\r\n\x1a\n"

_LAYERS = (
    *("Sequential", "Functional", "InputLayer"),
    *("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "Dense"),
    *("AveragePooling2D", "MaxPooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("Flatten", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Identity"),
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax"),
    *("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"),
    *("RMSNormalization", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    "Concatenate",
    *("Rescaling", "Normalization", "Resizing", "CenterCrop", "RandomCrop", "RandomFlip"),
    *("RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"),
)
_PARTS_OF_LAYERS = (
    *("GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal"),
    *("RandomUniform", "RandomNormal", "TruncatedNormal", "VarianceScaling", "Orthogonal"),
    *("Zeros", "Ones", "Constant"),
    *("L1", "L2", "L1L2", "OrthogonalRegularizer"),
    *("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
    *("DTypePolicy", "FloatDTypePolicy", "Policy", "SeedGenerator"),
    "__keras_tensor__",  # input of a layer in a functional model of Keras 3
)
_LOADABLE = frozenset(_LAYERS + _PARTS_OF_LAYERS)
_ACTIVATIONS = frozenset(
    [
        *("linear", "tanh", "sigmoid", "hard_sigmoid", "log_sigmoid", "softmax", "log_softmax"),
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish"),
        *("softplus", "softsign", "exponential", "hard_silu", "hard_swish", "hard_tanh", "glu"),
        *("soft_shrink", "hard_shrink", "tanh_shrink", "threshold", "squareplus", "sparse_plus"),
    ]
)
_SIZES = frozenset(
    [
        *("units", "filters", "kernel_size", "depth_multiplier", "groups", "dilation_rate"),
        *("pool_size", "size", "padding", "cropping", "strides", "target_shape", "output_padding"),
        *("height", "width", "shape", "batch_shape", "batch_input_shape", "input_shape"),
    ]
)
_HDF5_FILTERS = {1, 2, 3}  # deflate, shuffle and check sums; others are libraries of anybody
_OF_TRAINING = ("compile_config", "activity_regularizer")
_TENSORFLOWS_NAMES = {"softmax_v2": "softmax", "log_softmax_v2": "log_softmax"}


@dataclass(frozen=True)
class CheckedModel:
    """A copy of a model file that Keras may load.

    Attributes:
        path: path of the copy.
        written_by: version of the Keras that wrote the model.
    """

    path: Path
    written_by: str


def checked_copy(path: Path, folder: Path) -> CheckedModel:
    """Copies the harmless content of a model file, if the model needs nothing else.

    Args:
        path: `.keras` file.
        folder: empty folder for the copy.

    Returns:
        The copy.

    Raises:
        InputError: the file is missing, damaged or too large, or the model has content that is not
            known to be harmless.
    """
    try:
        with path.open("rb") as file:
            copy = _copy_of_hdf5 if file.read(len(_HDF5)) == _HDF5 else _copy_of_archive
            file.seek(0)
            return copy(file, folder)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        if error.strerror is None or error.errno is None:  # raised by h5py, not by the system
            raise InputError(f"{path}: not a whole Keras model file") from None
        raise InputError(f"{path}: {error.strerror}") from None
    except Exception:  # zipfile, zlib, json and h5py raise many kinds
        raise InputError(f"{path}: not a whole Keras model file") from None


def _copy_of_archive(file: IO[bytes], folder: Path) -> CheckedModel:
    import h5py  # part of every TensorFlow; slow to import

    with zipfile.ZipFile(file) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()))
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
        config, metadata = (_parsed(archive, name) for name in (_CONFIG, _METADATA))
        with zipfile.ZipFile(folder / "model.keras", "w") as copy:
            copy.writestr(_CONFIG, json.dumps(_checked(config)))
            copy.writestr(_METADATA, json.dumps(metadata))
            if _WEIGHTS in archive.namelist():
                extracted = folder / _WEIGHTS
                with archive.open(_WEIGHTS) as weights, extracted.open("wb") as target:
                    shutil.copyfileobj(weights, target)
                with h5py.File(extracted, "r") as numbers:
                    _check_weights(numbers)
                copy.write(extracted, _WEIGHTS)
                extracted.unlink()
    return CheckedModel(folder / "model.keras", _version(metadata["keras_version"]))


def _copy_of_hdf5(file: IO[bytes], folder: Path) -> CheckedModel:
    import h5py  # part of every TensorFlow; slow to import

    _check_size(file.seek(0, 2))
    file.seek(0)
    path = folder / "model.h5"  # Keras 3 reads HDF5 only under this name
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
    with h5py.File(path, "r+") as copy:
        if "model_config" not in copy.attrs:
            raise InputError("HDF5 with weights alone, without the model's layers")
        _check_weights(copy)
        text = copy.attrs["model_config"]
        _check_size(len(text), LARGEST_CONFIG)
        config = _checked(json.loads(text))
        copy.attrs["model_config"] = json.dumps(config)
        copy.attrs.pop("training_config", None)  # like compile_config
        written_by = copy.attrs.get("keras_version")
    return CheckedModel(path, _version(written_by))


def _parsed(archive: zipfile.ZipFile, name: str) -> Any:
    _check_size(archive.getinfo(name).file_size, LARGEST_CONFIG)
    return json.loads(archive.read(name))


def _check_weights(file: h5py.File) -> None:
    """Rejects HDF5 with anything but numbers of its own, read without a library of others."""
    import h5py

    groups, objects, size = [file], 0, 0
    while groups:
        group = groups.pop()
        for name in group:
            objects += 1  # a group may contain itself
            if objects > MOST_OBJECTS:
                raise InputError(f"more than {MOST_OBJECTS:,} arrays: too large for a LeNet-5")
            if type(group.get(name, getlink=True)) is not h5py.HardLink:
                raise InputError("refused, its weights are links to other files or places")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif not isinstance(item, h5py.Dataset) or not _is_plain(item):
                raise InputError("refused, its weights are not plain numbers of their own file")
            else:
                size += math.prod(map(int, item.shape)) * item.dtype.itemsize
                _check_size(size)


def _is_plain(array: h5py.Dataset) -> bool:
    layout = array.id.get_create_plist()
    filters = {layout.get_filter(place)[0] for place in range(layout.get_nfilters())}
    elsewhere = array.is_virtual or array.external
    return array.dtype.kind in "biuf" and not elsewhere and filters <= _HDF5_FILTERS


def _check_size(size: int, largest: int | None = None) -> None:
    if size > (LARGEST_FILE if largest is None else largest):
        raise InputError(f"{size:,} bytes unpacked: too large for a LeNet-5")


def _version(text: Any) -> str:
    """Returns a valid version; any other text is not printed."""
    known = isinstance(text, str) and re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", text)
    return text if known else "of an unknown version"


def _checked(config: Any) -> Any:
    """Returns a Keras configuration without compile settings; rejects unsafe content."""
    if isinstance(config, list):
        return [_checked(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function":
        return _function_name(config)
    if "class_name" in config:
        _check_class(config)
        if config["class_name"] == "Functional":
            _check_order(config["config"]["layers"])
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str) and value not in _ACTIVATIONS:
            raise _refusal(value)  # Keras 2 accepts any function of its module
        if key in _SIZES:
            _check_sides(key, value)
    return {key: _checked(value) for key, value in config.items() if key not in _OF_TRAINING}


def _check_sides(key: str, value: Any) -> None:
    """Rejects a layer whose weights or answers would fill the memory."""
    if isinstance(value, list):
        for item in value:
            _check_sides(key, item)
    elif isinstance(value, dict):
        _check_sides(key, list(value.values()))
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_SIDE:
        raise InputError(f"{key} is {value}: too large for a LeNet-5")
    elif isinstance(value, str) and any(sign.isdigit() for sign in value):
        raise _refusal(value)  # Keras 2 makes a number of it


def _check_class(config: dict[str, Any]) -> None:
    name = config["class_name"]
    if name not in _LOADABLE:
        raise _refusal(name)
    # Keras imports the named `module` for any class name.
    module = config.get("module") or "keras"
    if str(module).split(".")[0] not in ("keras", "tf_keras"):
        raise _refusal(module)
    # A class registered under its own name takes precedence over Keras's.
    if config.get("registered_name") not in (None, name):
        raise _refusal(config["registered_name"])


def _check_order(layers: list[dict[str, Any]]) -> None:
    """Rejects layers that wait for each other: Keras 2.12 to 3.11 would never finish."""
    # Keras 2 counts the creation of a nested model as its first call; Keras 3 would then wait for
    # one more call.
    own = 1 if keras_version().startswith("2.") else 0
    kinds = {layer["name"]: layer["class_name"] for layer in layers}
    calls = dict.fromkeys(kinds, 0)
    needed = [(at["name"], [_calls_in(n, kinds) for n in at["inbound_nodes"]]) for at in layers]
    if sum(1 + len(node) for _, nodes in needed for node in nodes) > MOST_CALLS:
        raise InputError(f"more than {MOST_CALLS:,} calls of layers: too large for a LeNet-5")

    def is_there(name: str, call: int) -> bool:
        more = {"InputLayer": 1, "Sequential": own, "Functional": own}.get(kinds[name], 0)
        return call < calls[name] + more

    before = -1
    while before < sum(calls.values()):
        before = sum(calls.values())
        for name, nodes in needed:
            for node in nodes[calls[name] :]:
                if not all(is_there(*call) for call in node):
                    break
                calls[name] += 1
    if any(calls[name] < len(nodes) for name, nodes in needed):
        raise InputError(f"Keras {keras_version()} cannot put its layers in an order")


def _calls_in(node: Any, names: Container[str]) -> list[tuple[str, int]]:
    """Returns the calls of other layers, by name and number, that provide a call's inputs."""
    if isinstance(node, dict):
        node = list(node.values())
    if not isinstance(node, list):
        return []
    if len(node) > 1 and isinstance(node[0], str) and node[0] in names and type(node[1]) is int:
        return [(node[0], node[1])]
    return [call for item in node for call in _calls_in(item, names)]


def _function_name(config: dict[str, Any]) -> str:
    """Returns the name of an activation that is a function; Keras finds its own by name."""
    given = str(config.get("config"))
    name = _TENSORFLOWS_NAMES.get(given, given)
    package = str(config.get("module") or "builtins").split(".")[0]
    theirs = package in ("builtins", "keras", "tf_keras", "tensorflow")
    registered = config.get("registered_name") in (None, "function", given, name)
    if name not in _ACTIVATIONS or not theirs or not registered:
        raise _refusal(given)
    return name


def _refusal(name: Any) -> InputError:
    return InputError(f"refused, {str(name)[:80]!r} is not known to be safe")
