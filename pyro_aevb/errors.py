"""The one error a user's mistake raises."""


class UsageError(ValueError):
    """A mistake in how the package is used, said in one line that names the thing and the remedy.

    The commands print it as it is and leave with exit status 2.
    """


def one_line(error: BaseException) -> str:
    r"""What an error says, in one line of at most 300 characters, without Pyro's list of shapes."""
    said = " ".join(str(error).partition("Trace Shapes:")[0].split())
    return said if len(said) < 300 else said[:300] + " …"
