"""The one error a user's mistake raises."""


class UsageError(ValueError):
    """A mistake in how the package is used, said in one line that names the thing and the remedy.

    The commands print it as it is and leave with exit status 2.
    """
