r"""Priors, posteriors and noise of weights: what makes any net Bayesian."""
