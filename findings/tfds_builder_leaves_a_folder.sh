#!/usr/bin/env bash
# `tfds.builder("mnist")` leaves a folder among the temporary files each time that the dataset is not
# prepared yet, also if nothing is then prepared. It is never removed, not at the process's end either.
#
# Guess: making a builder writes nothing; `download_and_prepare` cleans up what it needed.
# Seen (tensorflow-datasets 4.9.10, Python 3.11, CPU, TFDS's bucket out of reach): two calls of
# `tfds.builder("mnist:3.0.1", data_dir=…)` leave two folders `tmp…tfds`, also after the process has ended;
# the data folder stays empty. On a machine that runs a job a day they add up.
# Why, by the source of 4.9.10 (core/dataset_info.py): `initialize_from_bucket` makes the folder with
# `tempfile.mkdtemp`, copies the bucket's information into it if there is some, and never removes it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/temporary" "$folder/data"
cat >"$folder/build.py" <<'PYTHON'
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow_datasets as tfds

for _ in range(2):
    tfds.builder("mnist:3.0.1", data_dir=sys.argv[1])
print(tfds.__version__)
PYTHON
python3 -m venv "$folder/python"
"$folder/python/bin/python" -m pip install -q tensorflow-datasets==4.9.10 tensorflow-cpu==2.21.0
said=$(TMPDIR="$folder/temporary" "$folder/python/bin/python" "$folder/build.py" "$folder/data" 2>/dev/null | tail -n 1)
left=$(find "$folder/temporary" -mindepth 1 -maxdepth 1 -type d -name 'tmp*tfds' | wc -l)
inside=$(find "$folder/data" -mindepth 1 | wc -l)
echo "tensorflow-datasets $said: $left folders left, $inside files in the data folder"
[ "$left $inside" = "2 0" ] || {
  echo "changed: expected 2 folders and no file"
  exit 1
}
echo "as described"
