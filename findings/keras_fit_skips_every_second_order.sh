#!/usr/bin/env bash
# Keras's `fit` gives the model other epochs of a shuffled `tf.data` dataset in each version. Newer
# versions of Keras 3 make two iterators per epoch if the dataset's size is known, so that the model sees
# the dataset's orders 1, 3 and 5; with an unknown size it sees 1, 2 and 3.
#
# Guess: each epoch of `fit` is one iteration over the dataset, so the epochs have the orders that a loop
#        over the dataset has, with the same seeds; certainly the same ones in each version.
# Seen (Python 3.11, CPU; `Dataset.range(6).shuffle(6, seed=1)`, three epochs of one `fit`; number of the
# loop's iteration that has the epoch's order; 1 and 2 steps per execution):
#                                             size known    size unknown (after a `filter`)
#   tensorflow-cpu 2.15.1, keras 2.15.0       2 3 4         2 3 4 (1 step)
#   tensorflow-cpu 2.16.2, keras 3.4.1        1 2 3         1 2 3
#   tensorflow-cpu 2.21.0, keras 3.15.1       1 3 5         1 2 3
# So a training that goes on with `initial_epoch=3` cannot find its orders by skipping three iterations.
# Why, by the source of 3.15.1 (trainers/epoch_iterator.py): after the last step of a known number, an
# iterator is made for the next epoch, and another one when that epoch begins; each takes new seeds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/orders.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf


def shuffled():
    tf.keras.utils.set_random_seed(1)
    return tf.data.Dataset.range(6).shuffle(6, seed=1)


loop = shuffled()
truth = [tuple(int(n) for n in loop) for _ in range(8)]


def seen_by_fit(known, steps):
    seen = []

    def loss(labels, outputs):
        def note(batch):
            seen.append(int(batch.numpy()[0, 0]))
            return np.float32(0)

        noted = tf.py_function(note, [labels], tf.float32)
        noted.set_shape([])
        return tf.reduce_mean(outputs) * 0 + noted

    dataset = shuffled().map(lambda n: (tf.cast(tf.reshape(n, (1, 1)), tf.float32),) * 2)
    if not known:
        dataset = dataset.filter(lambda *_: True)
    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss=loss, steps_per_execution=steps)
    model.fit(dataset, epochs=3, verbose=0)
    return " ".join(str(truth.index(tuple(seen[first : first + 6])) + 1) for first in (0, 6, 12))


old = tf.__version__.startswith("2.15")  # unknown sizes: with 1 step per execution only
print(
    tf.__version__,
    *(f"known {seen_by_fit(True, steps)}," for steps in (1, 2)),
    *(f"unknown {seen_by_fit(False, steps)}," for steps in ((1,) if old else (1, 2))),
)
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install -q "tensorflow-cpu==$1" "$2"
  said=$("$folder/$1/bin/python" "$folder/orders.py" 2>/dev/null | tail -n 1)
  echo "$2: $said"
  grep -q " $3$" <<<"$said" || {
    echo "changed: expected $3"
    exit 1
  }
}
run 2.15.1 keras==2.15.0 "known 2 3 4, known 2 3 4, unknown 2 3 4,"
run 2.16.2 keras==3.4.1 "known 1 2 3, known 1 2 3, unknown 1 2 3, unknown 1 2 3,"
run 2.21.0 keras==3.15.1 "known 1 3 5, known 1 3 5, unknown 1 2 3, unknown 1 2 3,"
echo "as described"
