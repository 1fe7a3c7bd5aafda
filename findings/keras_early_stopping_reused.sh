#!/usr/bin/env bash
# Keras's `EarlyStopping`, used in a second `fit`, begins anew in some versions and not in others: the lowest
# loss of the first `fit` was kept by Keras 3.6, forgotten by 3.10, kept by 3.14 and is forgotten by 3.15.
# Its code says each time that instances may be used again.
#
# Guess: a callback begins anew with each `fit`, in every version.
# Seen (Python 3.11, CPU; patience 2; the first fit's losses are 1, 2, 3, the second fit's 10, 9, 8, 7; epochs
# that each trained):
#   tensorflow-cpu 2.15.1, keras 2.15.0:  3 4
#   tensorflow-cpu 2.18.1, keras 3.6.0:   3 2
#   tensorflow-cpu 2.18.1, keras 3.10.0:  3 4
#   tensorflow-cpu 2.18.1, keras 3.14.0:  3 2
#   tensorflow-cpu 2.18.1, keras 3.15.1:  3 4
# So a callback that is shared by the folds of a cross-validation cuts all but the first short.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/again.py" <<'PYTHON'
import os
from importlib.metadata import version

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf


class Scripted(tf.keras.callbacks.Callback):
    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["scripted"] = self.losses[epoch]


model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse")
stopping = tf.keras.callbacks.EarlyStopping("scripted", patience=2, mode="min")
trained = []
for losses in ([1, 2, 3], [10, 9, 8, 7]):
    ones = np.ones((4, 1), "float32")
    history = model.fit(
        ones, ones, epochs=len(losses), callbacks=[Scripted(losses), stopping], verbose=0
    )
    trained.append(str(len(history.epoch)))
print(version("keras"), *trained)
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$2"
  "$folder/$2/bin/python" -m pip install -q "tensorflow-cpu==$1" "keras==$2"
  said=$("$folder/$2/bin/python" "$folder/again.py" 2>/dev/null | tail -n 1)
  echo "$said"
  [ "$said" = "$2 $3" ] || {
    echo "changed: expected $2 $3"
    exit 1
  }
}
run 2.15.1 2.15.0 "3 4"
run 2.18.1 3.6.0 "3 2"
run 2.18.1 3.10.0 "3 4"
run 2.18.1 3.14.0 "3 2"
run 2.18.1 3.15.1 "3 4"
echo "as described"
