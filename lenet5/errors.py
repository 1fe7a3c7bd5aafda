"""The exception for errors that a user can fix."""

from __future__ import annotations


class InputError(Exception):
    """Invalid input; the one-line message gives problem and remedy.

    The command line prints the message without a traceback and exits with status 2.
    """
