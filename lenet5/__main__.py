"""`python -m lenet5` is the command `lenet5`."""

import sys


def main() -> int:
    """Runs the command; Ctrl-C while its modules are imported ends it as quietly as later."""
    try:
        from lenet5 import cli

        return cli.main()
    except KeyboardInterrupt:
        print("lenet5: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
