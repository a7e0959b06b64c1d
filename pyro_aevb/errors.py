"""The one error a user's mistake raises."""


class UsageError(ValueError):
    """A mistake in how the package is used, said in one line that names the thing and the remedy.

    The commands print it as it is and leave with exit status 2.
    """


def in_a_line(error: Exception) -> str:
    """What went wrong: the words of a UsageError, and of another error its type too."""
    # Pyro appends the shapes of the sites so far.
    said = " ".join(str(error).partition("Trace Shapes:")[0].split())
    said = said if len(said) < 300 else said[:300] + " …"
    if isinstance(error, UsageError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
