#!/usr/bin/env bash
# Keras 3's `fit` on arrays visits the images in one and the same order in every epoch, once
# `tf.keras.utils.set_random_seed` (or `tf.random.set_seed`) was called; Keras 2 draws a new one.
#
# Guess: `shuffle=True` is "before each epoch" (Keras's documentation of `fit`), so a seed makes the
#        orders repeatable from run to run, not equal to each other.
# Seen (Python 3.11, CPU, orders of six numbers in three epochs of one `fit`, seed 1):
#   tensorflow-cpu 2.15.1, keras 2.15.0:  three orders
#   tensorflow-cpu 2.16.2, keras 3.4.1:   one order, three times
#   tensorflow-cpu 2.21.0, keras 3.15.1:  one order, three times
# `tf.data.Dataset.shuffle(n, seed=1)` given to `fit` draws a new order in all three.
# Why: the permutation is a `tf.random.shuffle` in a `Dataset.map`. Keras 2 iterates over one dataset
# whose iterator lives on; Keras 3 makes an iterator for each epoch, whose kernel starts from the seed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/orders.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

numbers = np.arange(6, dtype="float32")[:, None]


def orders(**how):
    """The order of the numbers in each of three epochs, as the loss sees them."""
    tf.keras.utils.set_random_seed(1)
    seen = []

    def loss(labels, outputs):
        def note(batch):
            seen.append(int(batch.numpy()[0, 0]))
            return np.float32(0)

        noted = tf.py_function(note, [labels], tf.float32)
        noted.set_shape([])
        return tf.reduce_mean(outputs) * 0 + noted

    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss=loss)
    model.fit(epochs=3, verbose=0, **how)
    return [tuple(seen[first : first + 6]) for first in (0, 6, 12)]


arrays = orders(x=numbers, y=numbers, batch_size=1)
dataset = tf.data.Dataset.from_tensor_slices((numbers, numbers)).shuffle(6, seed=1).batch(1)
pipeline = orders(x=dataset)
print(tf.__version__, "arrays:", len(set(arrays)), "tf.data:", len(set(pipeline)), arrays)
PYTHON
run() { # requirements, different orders expected of arrays
  python3 -m venv "$folder/$2-$3"
  "$folder/$2-$3/bin/python" -m pip install -q "tensorflow-cpu==$1" "keras==$2"
  said=$("$folder/$2-$3/bin/python" "$folder/orders.py" 2>/dev/null | tail -n 1)
  echo "$said"
  grep -q "arrays: $3 tf.data: 3 " <<<"$said" || {
    echo "changed: expected $3 different orders of arrays and 3 of tf.data"
    exit 1
  }
}
run 2.15.1 2.15.0 3
run 2.16.2 3.4.1 1
run 2.21.0 3.15.1 1
echo "as described"
