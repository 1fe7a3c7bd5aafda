#!/usr/bin/env bash
# The number that Keras's `fit` hands to `on_train_batch_end` is the last step of a call into the graph in
# Keras 2 and from 3.11 on, and its first step in 3.6 and 3.10, where `steps_per_execution` is above 1.
#
# Guess: `on_train_batch_end(batch)` names the batch that has just ended, so `batch + 1` batches are done.
# Seen (Python 3.11, CPU; 8 batches, steps_per_execution=4):
#   tensorflow-cpu 2.15.1, keras 2.15.0:  3 7
#   tensorflow-cpu 2.18.1, keras 3.6.0:   0 4
#   tensorflow-cpu 2.18.1, keras 3.10.0:  0 4
#   tensorflow-cpu 2.18.1, keras 3.14.0:  3 7
# So a callback that counts images, or writes a checkpoint every n batches, is off by a call in some.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/ends.py" <<'PYTHON'
import os
from importlib.metadata import version

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf


class Ends(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        told.append(str(int(batch)))


told = []
model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse", steps_per_execution=4)
ones = np.ones((64, 1), "float32")
model.fit(ones, ones, batch_size=8, callbacks=[Ends()], verbose=0)
print(version("keras"), *told)
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$2"
  "$folder/$2/bin/python" -m pip install -q "tensorflow-cpu==$1" "keras==$2"
  said=$("$folder/$2/bin/python" "$folder/ends.py" 2>/dev/null | tail -n 1)
  echo "$said"
  [ "$said" = "$2 $3" ] || {
    echo "changed: expected $2 $3"
    exit 1
  }
}
run 2.15.1 2.15.0 "3 7"
run 2.18.1 3.6.0 "0 4"
run 2.18.1 3.10.0 "0 4"
run 2.18.1 3.14.0 "3 7"
echo "as described"
