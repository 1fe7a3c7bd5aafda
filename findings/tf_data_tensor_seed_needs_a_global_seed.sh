#!/usr/bin/env bash
# `tf.data.Dataset.shuffle` takes a tensor as its seed inside `map` and `flat_map`, but not when the
# global seed is 0: `tf.random.set_seed(0)` makes it raise, with a message about Python's `bool`.
#
# Guess: the documentation's "seed: a tf.int64 scalar tf.Tensor" holds for each global seed, 0 included,
#        and in a function of `flat_map` as well as outside.
# Seen (Python 3.11, CPU), with the seed `tf.constant(7, tf.int64)` or an element of `Dataset.range`:
#                                          tensorflow-cpu 2.15.1    tensorflow-cpu 2.21.0
#   outside, global seed 0 or 1            an order                 an order
#   in `flat_map`, global seed 1 or none   an order                 an order
#   in `flat_map`, global seed 0           OperatorNotAllowedInGraphError, in both
# Why, by the source of 2.21.0 (tensorflow/python/framework/random_seed.py): `get_seed` compares the
# pair of seeds with (0, 0); only a global seed of 0 leads to the comparison of the symbolic tensor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/seeds.py" <<'PYTHON'
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

if sys.argv[1] != "none":
    tf.random.set_seed(int(sys.argv[1]))


def shuffled(seed):
    return tf.data.Dataset.range(6).shuffle(6, seed=seed)


def outcome(make):
    try:
        return "order" if sorted(int(n) for n in make()) == list(range(6)) else "no order"
    except Exception as error:
        return type(error).__name__


outside = outcome(lambda: shuffled(tf.constant(7, tf.int64)))
inside = outcome(lambda: tf.data.Dataset.range(7, 8).flat_map(shuffled))
print(f"{tf.__version__}, global seed {sys.argv[1]}: {outside} outside, {inside} inside")
PYTHON
for version in 2.15.1 2.21.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install -q "tensorflow-cpu==$version"
  for seed in none 1 0; do
    said=$("$folder/$version/bin/python" "$folder/seeds.py" "$seed" 2>/dev/null | tail -n 1)
    echo "$said"
    expected=order
    [ "$seed" != 0 ] || expected=OperatorNotAllowedInGraphError
    grep -q ": order outside, $expected inside$" <<<"$said" || {
      echo "changed: expected an order outside, $expected inside"
      exit 1
    }
  done
done
echo "as described"
