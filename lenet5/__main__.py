"""Entry point of `python -m lenet5`, equal to the command `lenet5`."""

import signal
import sys


def main() -> int:
    """Runs the command; exits quietly on Ctrl-C and SIGTERM, also during its imports."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the time limit of a CI job
    try:
        from lenet5 import cli

        return cli.main()
    except KeyboardInterrupt:
        print("lenet5: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
