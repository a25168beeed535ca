"""The exceptions that end a command with a message instead of a traceback."""


class UserError(Exception):
    """Something the caller can fix; the message says what and how. Exit code 1."""


class UsageError(UserError):
    """A command line that can never work, so that a retry is no use. Exit code 2."""
