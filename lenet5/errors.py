"""The one exception that a user can mend."""

from __future__ import annotations


class InputError(Exception):
    """Wrong input: the message says in one line what is wrong and what to do.

    The command line prints it and exits with status 2; a traceback would help nobody.
    """
