r"""Auto-encoding variational Bayes and autoencoder comparisons as Pyro model/guide pairs.

Write ``model(x)`` and ``guide(x)`` in plain Pyro; :func:`fit` trains the pair and says what it is
worth: the ELBO beside an importance-weighted log-likelihood, with standard errors.
The commands' functions import nothing heavy, and all other names are imported when first used, so
that ``--help`` answers at once.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_aevb import data as data
from pyro_aevb.check import check
from pyro_aevb.compare import compare
from pyro_aevb.errors import UsageError
from pyro_aevb.evaluate import evaluate
from pyro_aevb.explore import explore
from pyro_aevb.fit import fit
from pyro_aevb.report import report
from pyro_aevb.threads import wait_briefly

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from pyro_aevb.estimators.estimator import Estimator
    from pyro_aevb.models import (
        DCIGN,
        RBM,
        VAE,
        AdversarialAutoencoder,
        Autoencoder,
        BayesianAutoencoder,
        BayesianVAE,
        BetaVAE,
        ConditionalAdversarialAutoencoder,
        ConditionalBayesianVAE,
        ConditionalVAE,
        DeepBeliefNet,
        DenoisingAutoencoder,
        DenoisingLayer,
        FactorVAE,
        InfoGAN,
        StackedDenoisingAutoencoder,
    )
    from pyro_aevb.models.elsewhere import pair
    from pyro_aevb.pairs.contract import inspect
    from pyro_aevb.pairs.pair import Pair, load_pair
    from pyro_aevb.run import Run
    from pyro_aevb.runs.using import decode, encode, generate, impute, predict, reconstruct

__version__ = "0.1.0"

# The functions bear their modules' names, so they are imported above; `python -m` on one of those
# modules then runs it a second time, which is harmless here.
warnings.filterwarnings("ignore", r"'pyro_aevb\..*found in sys.modules", RuntimeWarning, "runpy")

wait_briefly()

_HOME = {
    "Pair": "pairs.pair",
    "load_pair": "pairs.pair",
    "inspect": "pairs.contract",
    **dict.fromkeys(
        ("encode", "decode", "reconstruct", "generate", "predict", "impute"), "runs.using"
    ),
    "Run": "run",
    "Estimator": "estimators.estimator",
    "pair": "models.elsewhere",
}
r"""Where a name lives that is imported when it is first used; of all others, in models."""
__all__ = [
    "DCIGN",
    "RBM",
    "VAE",
    "AdversarialAutoencoder",
    "Autoencoder",
    "BayesianAutoencoder",
    "BayesianVAE",
    "BetaVAE",
    "ConditionalAdversarialAutoencoder",
    "ConditionalBayesianVAE",
    "ConditionalVAE",
    "DeepBeliefNet",
    "DenoisingAutoencoder",
    "DenoisingLayer",
    "Estimator",
    "FactorVAE",
    "InfoGAN",
    "Pair",
    "Run",
    "StackedDenoisingAutoencoder",
    "UsageError",
    "__version__",
    "check",
    "compare",
    "decode",
    "encode",
    "evaluate",
    "explore",
    "fit",
    "generate",
    "impute",
    "inspect",
    "load_pair",
    "pair",
    "predict",
    "reconstruct",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pyro_aevb' has no attribute {name!r}")
    return getattr(import_module(f"pyro_aevb.{_HOME.get(name, 'models')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
