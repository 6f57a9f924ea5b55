"""The one exception a user is meant to read."""


class CrystalmeshError(Exception):
    """Something the user can mend: its message is one line that says what, where and what to do.

    The command line prints it on stderr and exits with code 2; nothing is left half-written.
    """
