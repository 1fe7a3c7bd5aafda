"""`python -m lenet5` is the command `lenet5`."""

import sys

from lenet5.cli import main

if __name__ == "__main__":
    sys.exit(main())
