"""The pairs that come with the package, one file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.models.adversarialautoencoder import AdversarialAutoencoder
    from pyro_aevb.models.autoencoder import Autoencoder
    from pyro_aevb.models.bayesianautoencoder import BayesianAutoencoder
    from pyro_aevb.models.bayesianvae import BayesianVAE
    from pyro_aevb.models.betavae import BetaVAE
    from pyro_aevb.models.denoisingautoencoder import DenoisingAutoencoder
    from pyro_aevb.models.vae import VAE

__all__ = [
    "VAE",
    "AdversarialAutoencoder",
    "Autoencoder",
    "BayesianAutoencoder",
    "BayesianVAE",
    "BetaVAE",
    "DenoisingAutoencoder",
]


def __getattr__(name: str) -> Any:
    # Imported when first used: to list the pairs must not cost the import of PyTorch and Pyro.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{name.lower()}", __name__), name)
