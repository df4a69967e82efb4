"""The one exception for a user's mistake: it becomes one line and exit code 2."""


class InputError(ValueError):
    """Bad input: the message names the file, what was expected, what was found, what to do next."""
