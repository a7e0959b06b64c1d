from .bayesian import Bayesian
from .vae import VAE


class BayesianVAE(Bayesian):
    family = VAE
