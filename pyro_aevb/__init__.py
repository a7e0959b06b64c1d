r"""Auto-encoding variational Bayes and autoencoder comparisons as Pyro model/guide pairs.

Write ``model(x)`` and ``guide(x)`` in plain Pyro; :func:`fit` trains the pair and says what it is
worth: the ELBO beside an importance-weighted log-likelihood, with standard errors.
The commands' functions import nothing heavy, and all other names are imported when first used, so
that ``--help`` answers at once.
"""

import warnings
from importlib import import_module
from typing import Any

from pyro_aevb.check import check
from pyro_aevb.compare import compare
from pyro_aevb.errors import UsageError
from pyro_aevb.evaluate import evaluate
from pyro_aevb.fit import fit

__version__ = "0.1.0"

# The functions bear their modules' names, so they are imported above; `python -m` on one of those
# modules then runs it a second time, which is harmless here.
warnings.filterwarnings("ignore", r"'pyro_aevb\..*found in sys.modules", RuntimeWarning, "runpy")

_HOME = {
    "Run": "runs",
    "Pair": "pairs",
    "load_pair": "pairs",
    "inspect": "inspection",
    "encode": "predict",
    "decode": "predict",
    "reconstruct": "predict",
    "generate": "predict",
    "VAE": "models",
    "Autoencoder": "models",
    "BetaVAE": "models",
    "DenoisingAutoencoder": "models",
}
__all__ = ["UsageError", "__version__", "check", "compare", "evaluate", "fit", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pyro_aevb' has no attribute {name!r}")
    return getattr(import_module(f"pyro_aevb.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
