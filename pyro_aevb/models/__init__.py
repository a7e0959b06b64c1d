"""The pairs that come with the package, one file for each family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.models.adversarial_autoencoder import (
        AdversarialAutoencoder as AdversarialAutoencoder,
    )
    from pyro_aevb.models.autoencoder import Autoencoder as Autoencoder
    from pyro_aevb.models.bayesian_autoencoder import BayesianAutoencoder as BayesianAutoencoder
    from pyro_aevb.models.bayesian_vae import BayesianVAE as BayesianVAE
    from pyro_aevb.models.beta_vae import BetaVAE as BetaVAE
    from pyro_aevb.models.conditional import (
        ConditionalAdversarialAutoencoder as ConditionalAdversarialAutoencoder,
    )
    from pyro_aevb.models.conditional import ConditionalBayesianVAE as ConditionalBayesianVAE
    from pyro_aevb.models.conditional import ConditionalVAE as ConditionalVAE
    from pyro_aevb.models.dc_ign import DCIGN as DCIGN
    from pyro_aevb.models.deep_belief_net import DeepBeliefNet as DeepBeliefNet
    from pyro_aevb.models.denoising_autoencoder import DenoisingAutoencoder as DenoisingAutoencoder
    from pyro_aevb.models.denoising_layer import DenoisingLayer as DenoisingLayer
    from pyro_aevb.models.factor_vae import FactorVAE as FactorVAE
    from pyro_aevb.models.infogan import InfoGAN as InfoGAN
    from pyro_aevb.models.rbm import RBM as RBM
    from pyro_aevb.models.stacked_denoising_autoencoder import (
        StackedDenoisingAutoencoder as StackedDenoisingAutoencoder,
    )
    from pyro_aevb.models.vae import VAE as VAE

MODULES = {
    "VAE": "vae",
    "AdversarialAutoencoder": "adversarial_autoencoder",
    "Autoencoder": "autoencoder",
    "BayesianAutoencoder": "bayesian_autoencoder",
    "BayesianVAE": "bayesian_vae",
    "BetaVAE": "beta_vae",
    "ConditionalVAE": "conditional",
    "ConditionalAdversarialAutoencoder": "conditional",
    "ConditionalBayesianVAE": "conditional",
    "DenoisingAutoencoder": "denoising_autoencoder",
    "DeepBeliefNet": "deep_belief_net",
    "DenoisingLayer": "denoising_layer",
    "FactorVAE": "factor_vae",
    "InfoGAN": "infogan",
    "DCIGN": "dc_ign",
    "StackedDenoisingAutoencoder": "stacked_denoising_autoencoder",
    "RBM": "rbm",
}
r"""The module of each pair, by the pair's name."""

__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    # Imported when first used: to list the pairs must not cost the import of PyTorch and Pyro.
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
