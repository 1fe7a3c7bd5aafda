#!/usr/bin/env bash
# `tensorflow-cpu[and-cuda]` installs NVIDIA's libraries beside a TensorFlow that cannot use them.
#
# Guess: `tensorflow-cpu`, the package without code for GPUs, has no extra `and-cuda`, so that pip warns ("does
# not provide the extra") and installs TensorFlow alone.
# Seen (pip 25.3, Python 3.11, Linux x86-64; versions of NVIDIA's libraries change with the day):
#   tensorflow-cpu 2.21.0: 12 packages of NVIDIA added by the extra, 0 warnings
#   added by the extra of tensorflow 2.21.0: 12
#   its TensorFlow: is_cuda_build False
# So one wrong word of a requirement costs a download of 2.8 GB, resolves, installs and imports without a word,
# and trains on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv env
env/bin/python -m pip install -q pip==25.3
names() { # requirement -> NVIDIA's packages of it; nothing is downloaded but metadata
  env/bin/python -m pip install -q --dry-run --ignore-installed --report "$2" "$1" 2>"$2.err"
  env/bin/python - "$2" <<'P'
import json, sys
names = {each["metadata"]["name"] for each in json.load(open(sys.argv[1]))["install"]}
for name in sorted(name for name in names if name.startswith("nvidia")):
    print(name)
P
}
names 'tensorflow-cpu[and-cuda]==2.21.0' cpu.json >cpu.txt
names 'tensorflow-cpu==2.21.0' plain.json >plain.txt
names 'tensorflow[and-cuda]==2.21.0' gpu.json >gpu.txt
count=$(grep -c . cpu.txt)
warnings=$(grep -c extra cpu.json.err || true)
echo "tensorflow-cpu 2.21.0: $count packages of NVIDIA added by the extra, $warnings warnings"
env/bin/python -m pip install -q tensorflow-cpu==2.21.0
built=$(env/bin/python -c 'import tensorflow as tf; print(tf.sysconfig.get_build_info()["is_cuda_build"])' 2>/dev/null)
echo "added by the extra of tensorflow 2.21.0: $(grep -c . gpu.txt)"
echo "its TensorFlow: is_cuda_build $built"
[ "$count" -ge 10 ] && [ "$warnings" = 0 ] && [ ! -s plain.txt ] && cmp -s cpu.txt gpu.txt && [ "$built" = False ] || {
  echo "changed: expected NVIDIA's packages, the same as of tensorflow, without a warning, for a build without CUDA"
  exit 1
}
echo "as described"
