#!/usr/bin/env bash
# Keras 3's `fit(steps_per_epoch=n)` trains more than n steps an epoch where `steps_per_execution` does
# not divide n: it rounds up to whole calls into the graph, without a word. Keras 2 cuts the last call.
#
# Guess: `steps_per_execution` changes the speed; an epoch has the steps that it was told.
# Seen (Python 3.11, CPU; a dataset that repeats, 2 epochs of 6 steps: 12 steps are asked for; steps that
# the optimiser counts with steps_per_execution 1, 3, 4, 16):
#   tensorflow-cpu 2.15.1, keras 2.15.0:  12 12 12 12
#   tensorflow-cpu 2.16.2, keras 3.4.1:   12 12 16 32
#   tensorflow-cpu 2.21.0, keras 3.15.1:  12 12 16 32
# So a schedule over 12 steps has ended early, and images are seen more often than planned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/steps.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

numbers = np.arange(64, dtype="float32")[:, None] / 64
steps = []
for together in (1, 3, 4, 16):
    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=together)
    repeating = tf.data.Dataset.from_tensor_slices((numbers, numbers)).batch(8).repeat()
    model.fit(repeating, epochs=2, steps_per_epoch=6, verbose=0)
    steps.append(str(int(model.optimizer.iterations.numpy())))
print(tf.__version__, *steps)
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$2"
  "$folder/$2/bin/python" -m pip install -q "tensorflow-cpu==$1" "keras==$2"
  said=$("$folder/$2/bin/python" "$folder/steps.py" 2>/dev/null | tail -n 1)
  echo "$said"
  [ "$said" = "$1 $3" ] || {
    echo "changed: expected $1 $3"
    exit 1
  }
}
run 2.15.1 2.15.0 "12 12 12 12"
run 2.16.2 3.4.1 "12 12 16 32"
run 2.21.0 3.15.1 "12 12 16 32"
echo "as described"
