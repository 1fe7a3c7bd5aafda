#!/usr/bin/env bash
# `fit` under `tf.distribute.MirroredStrategy` reports the loss of one device, and trains to other weights,
# once a batch does not divide by the number of replicas.
#
# Guess: the gradient of a batch is the mean over its examples, however replicas share them; so one
#        replica and two give the same weights up to rounding, and the same loss.
# Seen (Python 3.11, two logical CPU devices; `x = 1..7`, one weight of 1, mean squared error to 0, one
# epoch of plain SGD at rate 0.01, batches of 4 and 3, no shuffling):
#                                        loss, one   loss, two   weight, one   weight, two
#   tensorflow-cpu 2.15.1, keras 2.15.0   15.6393     15.6393     0.22667       0.17425
#   tensorflow-cpu 2.21.0, keras 3.15.1   15.6393     15.6393     0.22667       0.17425
# The last batch is 5, 6 and 7: the first replica takes two of them, the second one. The gradient is the
# mean of the two replicas' means, (25 + 36) / 2 and 49, so the example 7 counts twice as much as the
# others: 0.85 - 0.01 * 2 * 0.85 * 39.75 = 0.17425. One device takes (25 + 36 + 49) / 3: 0.22667.
# The reported loss is the mean over examples in both, so no log shows the difference. Whole batches agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/uneven.py" <<'PYTHON'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

keras = tf.keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def trained(strategy, count):
    inputs = np.arange(1, count + 1, dtype="float32")[:, None]
    with strategy.scope():
        weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.Sequential([weight])
        model.build((None, 1))
        model.compile(keras.optimizers.SGD(0.01), "mse")
    history = model.fit(inputs, np.zeros_like(inputs), batch_size=4, shuffle=False, verbose=0)
    return round(history.history["loss"][0], 4), round(float(model.get_weights()[0][0, 0]), 5)


for count in (8, 7):
    one = trained(tf.distribute.get_strategy(), count)
    two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), count)
    print(count, "one", *one, "two", *two, end="; ")
PYTHON
run() { # TensorFlow, Keras, what is expected
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install -q "tensorflow-cpu==$1" "$2"
  said=$(CUDA_VISIBLE_DEVICES='' "$folder/$1/bin/python" "$folder/uneven.py" 2>/dev/null | tail -n 1)
  echo "$2: $said"
  grep -qF "$3" <<<"$said" || {
    echo "changed: expected $3"
    exit 1
  }
}
run 2.15.1 keras==2.15.0 "7 one 15.6393 0.22667 two 15.6393 0.17425"
run 2.21.0 keras==3.15.1 "7 one 15.6393 0.22667 two 15.6393 0.17425"
echo "as described"
