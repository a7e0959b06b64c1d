"""Linear-Gaussian pairs in double precision, and their closed forms by other means."""

import math
import threading

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.stats import multivariate_normal
from torch import nn

from pyro_aevb.data import Batches, Split
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair


def ready(source, x):
    """Load and inspect a pair."""
    pair = load_pair(source)
    inspect(pair, x)
    return pair


def with_data(source, *args, **options):
    """A source with data of its own, and its pair."""
    x = source.data(*args, **options)
    return source, x, ready(source, x)


def batches(x):
    return Batches(Split(x, None, 1), "none")


def matrix(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def posterior(weight, noise):
    """The gain and covariance of p(z|x) = N(gain (x - mu), covariance); noise of all or of each."""
    weighted = weight.T / noise**2
    precision = torch.eye(weight.shape[1], dtype=weight.dtype) + weighted @ weight
    covariance = torch.linalg.inv(precision)
    return covariance @ weighted, covariance


def marginal(weight, mu, noise):
    """p(x) as a SciPy distribution."""
    weight = weight.detach().numpy()
    covariance = weight @ weight.T + noise**2 * np.eye(len(weight))
    return multivariate_normal(np.asarray(mu), covariance)


def log():
    """Where calls are kept beside the state of a pair: in what a library keeps."""
    made = threading.local()
    made.items = []
    return made


class PPCA(nn.Module):
    """x ~ N(W z + mu, noise^2), z ~ N(0, I), the guide N(A x + c, diag(s^2)) or the posterior."""

    def __init__(self, exact=False, num_data=None, features=4, latent=2, noise=0.6):
        super().__init__()
        self.exact, self.num_data, self.noise = exact, num_data, noise
        self.W = nn.Parameter(matrix(features, latent, seed=1))
        self.mu = nn.Parameter(matrix(features, seed=2))
        gain, covariance = (value.detach() for value in posterior(self.W, noise))
        # Near the posterior, but not it.
        self.A = nn.Parameter(0.8 * gain + 0.03)
        self.c = nn.Parameter(0.1 - gain @ self.mu.detach())
        self.log_s = nn.Parameter(0.5 * covariance.diagonal().log() + 0.2)
        self.z, self.rows = None, log()

    def plate(self, x):
        if self.num_data is None:
            return pyro.plate("data", len(x))
        return pyro.plate("data", size=self.num_data, subsample_size=len(x))

    def model(self, x):
        self.rows.items.append(len(x))
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.W.shape[1]), 1.0).to_event(1))
            self.z = z
            pyro.sample("x", dist.Normal(z @ self.W.T + self.mu, self.noise).to_event(1), obs=x)

    def guide(self, x):
        if self.exact:
            gain, covariance = posterior(self.W, self.noise)
            q = dist.MultivariateNormal((x - self.mu) @ gain.T, covariance_matrix=covariance)
        else:
            q = dist.Normal(x @ self.A.T + self.c, self.log_s.exp()).to_event(1)
        with self.plate(x):
            pyro.sample("z", q)

    def data(self, n, seed=3):
        z = matrix(n, self.W.shape[1], seed=seed)
        noise = matrix(n, len(self.W), seed=seed + 100)
        return (z @ self.W.T + self.mu + self.noise * noise).detach()

    def log_likelihood(self, x):
        return marginal(self.W, self.mu.detach(), self.noise).logpdf(x.numpy())

    def closed_form(self, x):
        """Per datum: E_q[log p(x|z)] and KL(q(z|x) || p(z)) of the diagonal guide."""
        m, variance = x @ self.A.T + self.c, (2 * self.log_s).exp()
        squares = ((x - self.mu - m @ self.W.T) ** 2).sum(-1) + (self.W**2 @ variance).sum()
        constant = len(self.W) / 2 * math.log(2 * math.pi * self.noise**2)
        kl = 0.5 * (m**2 + variance - 1 - variance.log()).sum(-1)
        return -squares / (2 * self.noise**2) - constant, kl


class GaussianMean:
    """x ~ N(w, noise^2), w ~ N(0, prior^2): no local latents, the guide is p(w|D) exactly."""

    def __init__(self, x, prior=1.5, noise=1.0):
        self.num_data, self.prior, self.noise, self.D = len(x), prior, noise, x
        precision = 1 / prior**2 + len(x) / noise**2
        self.loc, self.scale = x.sum(0) / noise**2 / precision, precision**-0.5
        self.w = None

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros_like(self.loc), self.prior).to_event(1))
        self.w = w
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w, self.noise).to_event(1), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.loc, self.scale).to_event(1))

    def log_predictive(self, x):
        """log p(x*|D) per datum."""
        covariance = (self.scale**2 + self.noise**2) * np.eye(len(self.loc))
        return multivariate_normal(self.loc.numpy(), covariance).logpdf(x.numpy())

    def log_evidence(self):
        """log p(D): per feature, the data are jointly Gaussian with a common mean."""
        n = self.num_data
        joint = multivariate_normal(
            np.zeros(n), self.noise**2 * np.eye(n) + self.prior**2 * np.ones((n, n))
        )
        return joint.logpdf(self.D.numpy().T).sum()

    def weight_kl(self):
        ratio = self.scale**2 / self.prior**2
        return float(0.5 * (ratio + (self.loc / self.prior) ** 2 - 1 - math.log(ratio)).sum())


class BayesianPPCA:
    """x ~ N(W z, noise^2) with W ~ N(0, 1) global; q(z|x, W) is the exact posterior given W."""

    def __init__(self, num_data, spread=0.15, noise=0.7, local_first=False):
        self.num_data, self.noise, self.local_first = num_data, noise, local_first
        self.loc, self.spread = matrix(3, 2, seed=5), spread
        self.seen = []

    def plate(self, x):
        return pyro.plate("data", size=self.num_data, subsample_size=len(x))

    def model(self, x):
        prior = dist.Normal(x.new_zeros(3, 2), 1.0).to_event(2)
        W = pyro.sample("W", prior)
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, self.noise).to_event(1), obs=x)

    def guide(self, x):
        if self.local_first:  # q(z|x) then does not depend on the draw of W
            self.code(x, self.loc)
        W = pyro.sample("W", dist.Normal(self.loc, self.spread).to_event(2))
        self.seen.append(W)
        if not self.local_first:
            self.code(x, W)

    def code(self, x, W):
        gain, covariance = posterior(W, self.noise)
        with self.plate(x):
            pyro.sample("z", dist.MultivariateNormal(x @ gain.T, covariance_matrix=covariance))

    def log_likelihood(self, x, W):
        return marginal(W, np.zeros(3), self.noise).logpdf(x.numpy())


class Hierarchy:
    """z2 ~ N(0, 1), z1 ~ N(a z2, t^2), x ~ N(W z1, noise^2); the posterior, widened."""

    def __init__(self, widen=1.0):
        self.widen, self.noise, self.t = widen, 0.6, 0.8
        self.a, self.W = torch.tensor([0.9, -0.5]).double(), matrix(4, 2, seed=7)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 * self.a, self.t).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ self.W.T, self.noise).to_event(1), obs=x)

    def guide(self, x):
        eye = torch.eye(2).double()
        b = self.W @ self.a  # x given z2: N(b z2, C)
        C = self.t**2 * self.W @ self.W.T + self.noise**2 * torch.eye(4).double()
        variance = 1 / (1 + b @ torch.linalg.solve(C, b))
        loc2 = variance * torch.linalg.solve(C, x.T).T @ b
        covariance = torch.linalg.inv(eye / self.t**2 + self.W.T @ self.W / self.noise**2)
        with pyro.plate("data", len(x)):
            scale = self.widen * variance.sqrt()
            z2 = pyro.sample("z2", dist.Normal(loc2[:, None], scale).to_event(1))
            loc1 = (x @ self.W / self.noise**2 + z2 * self.a / self.t**2) @ covariance
            q = dist.MultivariateNormal(loc1, covariance_matrix=self.widen**2 * covariance)
            pyro.sample("z1", q)

    def log_likelihood(self, x):
        covariance = self.t**2 * torch.eye(2).double() + torch.outer(self.a, self.a)
        covariance = self.W @ covariance @ self.W.T + self.noise**2 * torch.eye(4).double()
        return multivariate_normal(np.zeros(4), covariance.numpy()).logpdf(x.numpy())
