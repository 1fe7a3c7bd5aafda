#!/usr/bin/env bash
# Keras 3.4's `evaluate` and `fit` report a loss that is too small where `steps_per_execution` does
# not divide the number of batches, without a word; the optimiser counts a step that never was.
# Keras 2.15 and 3.15 report the same loss whatever `steps_per_execution` is.
#
# Guess: `steps_per_execution` changes the speed, never the numbers.
# Seen (Python 3.11, CPU; five batches, one epoch; steps_per_execution 1, 2, 4):
#   tensorflow-cpu 2.15.1, keras 2.15.0:  evaluate 0.817 0.817 0.817, steps 5 5 5
#   tensorflow-cpu 2.16.2, keras 3.4.1:   evaluate 0.817 0.681 0.511, steps 5 6 6
#   tensorflow-cpu 2.21.0, keras 3.15.1:  evaluate 0.817 0.817 0.817, steps 5 5 5
# Keras 3.7.0 is the first of 3.6 to 3.9 whose TensorFlow trainer asks whether a batch is left.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/losses.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

ones = np.ones((10, 1), "float32")
losses, steps = [], []
for together in (1, 2, 4):
    layer = tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    model.compile("sgd", "mse", steps_per_execution=together)
    model.fit(ones, ones, batch_size=2, epochs=1, shuffle=False, verbose=0)
    steps.append(str(int(model.optimizer.iterations.numpy())))
    losses.append(f"{model.evaluate(ones, ones, batch_size=2, verbose=0):.3f}")
print(tf.__version__, "evaluate", *losses, "steps", *steps)
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$2"
  "$folder/$2/bin/python" -m pip install -q "tensorflow-cpu==$1" "keras==$2"
  said=$("$folder/$2/bin/python" "$folder/losses.py" 2>/dev/null | tail -n 1)
  echo "$said"
  [ "$said" = "$1 $3" ] || {
    echo "changed: expected $1 $3"
    exit 1
  }
}
run 2.15.1 2.15.0 "evaluate 0.817 0.817 0.817 steps 5 5 5"
run 2.16.2 3.4.1 "evaluate 0.817 0.681 0.511 steps 5 6 6"
run 2.21.0 3.15.1 "evaluate 0.817 0.817 0.817 steps 5 5 5"
echo "as described"
