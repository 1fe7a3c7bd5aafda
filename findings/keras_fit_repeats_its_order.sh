#!/usr/bin/env bash
# Keras 3's `fit` on arrays visits the images in one and the same order in every epoch, once
# `tf.keras.utils.set_random_seed` was called; Keras 2 draws a new one. In a nightly of Keras 3.16 the
# order does not even depend on the seed.
#
# Guess: `shuffle=True` is "before each epoch" (Keras's documentation of `fit`), so a seed makes the
#        orders repeatable from run to run, not equal to each other.
# Seen (Python 3.11, CPU; different orders of six numbers in three epochs of one `fit` with seed 1, and
# in the first epochs with seeds 1, 2 and 3):
#   tensorflow-cpu 2.15.1, keras 2.15.0:                             3 by epoch, 3 by seed
#   tensorflow-cpu 2.16.2, keras 3.4.1:                              1 by epoch, 3 by seed
#   tensorflow-cpu 2.21.0, keras 3.15.1:                             1 by epoch, 3 by seed
#   tensorflow-cpu 2.22.0rc0, keras-nightly 3.16.0.dev2026102704:    1 by epoch, 1 by seed
# `tf.data.Dataset.shuffle(n, seed=1)` given to `fit` draws a new order in each epoch in all four.
# Why, by the sources of 2.15.0 and 3.15.1: the permutation is a `tf.random.shuffle` in a `Dataset.map`.
# Keras 2 goes on with one iterator; Keras 3 makes one for each epoch, which starts from the seed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/orders.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

numbers = np.arange(6, dtype="float32")[:, None]


def orders(seed=1, **how):
    """The order of the numbers in each of three epochs, as the loss sees them."""
    tf.keras.utils.set_random_seed(seed)
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
by_seed = {orders(seed, x=numbers, y=numbers, batch_size=1)[0] for seed in (1, 2, 3)}
dataset = tf.data.Dataset.from_tensor_slices((numbers, numbers)).shuffle(6, seed=1).batch(1)
pipeline = orders(x=dataset)
counts = {"by epoch": arrays, "by seed": by_seed, "tf.data by epoch": pipeline}
print(tf.__version__, *(f"{len(set(seen))} {name}" for name, seen in counts.items()), arrays)
PYTHON
run() { # TensorFlow, Keras, different orders by epoch and by seed that are expected
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install -q "tensorflow-cpu==$1" "$2"
  said=$("$folder/$1/bin/python" "$folder/orders.py" 2>/dev/null | tail -n 1)
  echo "$2: $said"
  grep -q " $3 by epoch $4 by seed 3 tf.data by epoch " <<<"$said" || {
    echo "changed: expected $3 by epoch and $4 by seed of arrays, 3 by epoch of tf.data"
    exit 1
  }
}
run 2.15.1 keras==2.15.0 3 3
run 2.16.2 keras==3.4.1 1 3
run 2.21.0 keras==3.15.1 1 3
run 2.22.0rc0 keras-nightly==3.16.0.dev2026102704 1 1
echo "as described"
