#!/usr/bin/env bash
# Pillow 12.3.0 cannot read an uncompressed YCbCr TIFF that it wrote itself, nor one by another
# Pillow: "image file is truncated", though the file is whole. 13.0.0 reads both, with the very
# pixels. It matters here since 12.3.0 is the newest Pillow for Python 3.10: such a picture is
# refused there by `lenet5 predict`. With LZW compression 12.3.0 reads it. (12.3.0 expects four bytes
# a pixel where three stand, PIL.TiffImagePlugin.OPEN_INFO; reported as python-pillow/Pillow#9770.)
#
# Needs Python 3.11 or newer with pip, and the network; takes seconds. PYTHON names the interpreter.
# Exits 0 if all is as described, 1 if the behaviour has changed, 2 if it could not be tried.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python=${PYTHON:-python3}

for version in 12.3.0 13.0.0; do
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --root-user-action ignore --target "$version" "pillow==$version" || exit 2
done

cat > write.py <<'END'
"""Writes a gradient as a YCbCr TIFF, and its pixels."""
import sys

import PIL
from PIL import Image

name, options = sys.argv[1], {"compression": sys.argv[2]} if sys.argv[2:] else {}
image = Image.linear_gradient("L").resize((40, 56)).convert("RGB").convert("YCbCr")
image.save(f"{name}.tiff", **options)
with open(f"{name}.rgb", "wb") as file:
    file.write(image.convert("RGB").tobytes())
print(f"Pillow {PIL.__version__} writes {name}.tiff")
END

cat > read.py <<'END'
"""Reads it: the last line is `same pixels`, `other pixels`, or the error."""
import sys

import PIL
from PIL import Image

name = sys.argv[1]
print(f"Pillow {PIL.__version__} reads {name}.tiff", end=": ")
try:
    with Image.open(f"{name}.tiff") as image:
        pixels = image.convert("RGB").tobytes()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
else:
    with open(f"{name}.rgb", "rb") as file:
        print("same pixels" if pixels == file.read() else "other pixels")
END

with() { PYTHONPATH=$folder/$1 "$python" -s "${@:2}" || exit 2; }

"$python" --version
with 12.3.0 write.py by-12.3.0
with 13.0.0 write.py by-13.0.0
with 12.3.0 write.py by-12.3.0-lzw tiff_lzw

changed=0
expect() { # version, file, what reading it comes to
  local seen
  seen=$(with "$1" read.py "$2")
  echo "$seen"
  if [[ $seen != "Pillow $1 reads $2.tiff: $3" ]]; then
    echo "  CHANGED: it was: $3"
    changed=1
  fi
}
truncated='OSError: image file is truncated (0 bytes not processed)'
expect 12.3.0 by-12.3.0 "$truncated"
expect 12.3.0 by-13.0.0 "$truncated"
expect 12.3.0 by-12.3.0-lzw 'same pixels'
expect 13.0.0 by-12.3.0 'same pixels'
expect 13.0.0 by-13.0.0 'same pixels'

if ((changed)); then
  echo 'The behaviour has changed.'
else
  echo 'As described: Pillow 12.3.0 cannot read it, 13.0.0 can.'
fi
exit "$changed"
