from .autoencoder import Autoencoder
from .bayesian import Bayesian


class BayesianAutoencoder(Bayesian):
    family = Autoencoder
