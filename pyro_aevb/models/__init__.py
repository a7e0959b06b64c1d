"""The pairs that come with the package, one file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adversarialautoencoder import AdversarialAutoencoder
    from .autoencoder import Autoencoder
    from .bayesianautoencoder import BayesianAutoencoder
    from .bayesianvae import BayesianVAE
    from .betavae import BetaVAE
    from .denoisingautoencoder import DenoisingAutoencoder
    from .vae import VAE

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
