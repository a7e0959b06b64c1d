r"""All commands under one name: ``pyro-aevb fit ...`` is ``python -m pyro_aevb.fit ...``."""

import runpy
import sys

from pyro_aevb import __version__
from pyro_aevb.errors import UsageError, unknown

COMMANDS = {
    "fit": "train a pair, then say what it is worth",
    "evaluate": "score a run again, or otherwise",
    "check": "say what a pair is, or what is wrong with it",
    "compare": "set runs side by side",
    "report": "write a run as one page of HTML",
    "explore": "move through the codes of a run in a browser",
    "studies": "regenerate a comparison beside published values",
    "studies.search": "search a study's settings on validation data",
}
r"""The modules that are commands, and what each is for."""


def main() -> None:
    r"""Run the command that the first word names; the others are its own."""
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
        print("usage: pyro-aevb COMMAND ...\n", *lines, sep="\n")
        print("\npyro-aevb COMMAND --help lists its flags.")
    elif word == "--version":
        print(f"pyro_aevb {__version__}")
    elif word not in COMMANDS:
        said: UsageError = unknown("command", word, COMMANDS)
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [sys.argv[0], *rest]
        runpy.run_module(f"pyro_aevb.{word}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
