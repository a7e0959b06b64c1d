"""Mutual information, aggregate KL and collapse, against closed forms and quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import (
    PPCA,
    BayesianPPCA,
    GaussianMean,
    Hierarchy,
    batches,
    marginal,
    matrix,
    ready,
)

import pyro_aevb
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.latents import latent_health, no_density, summarize_latents
from pyro_aevb.models import Autoencoder
from pyro_aevb.reports.text import warnings


def encloses(low, high, truth, error, most):
    """The truth lies between two means of per-datum values, within 3.5 standard errors."""
    assert error < most
    assert low.mean() < high.mean() < low.mean() + most
    assert low.mean() - 3.5 * error < truth < high.mean() + 3.5 * error


def test_both_sides_enclose_the_information_of_the_population():
    source = PPCA(features=5, latent=3)
    x = source.data(1500)
    health = latent_health(ready(source, x), batches(x), num_data=1500)

    # q(z) = N(A mu + c, A C A' + diag(s^2)) for data from N(mu, C).
    A, c, s = (value.detach().numpy() for value in (source.A, source.c, source.log_s.exp()))
    of_x = marginal(source.W, source.mu.detach(), source.noise)
    mean, covariance = A @ of_x.mean + c, A @ of_x.cov @ A.T + np.diag(s**2)
    _, log_det = np.linalg.slogdet(covariance)
    information = 0.5 * (log_det - 2 * np.log(s).sum())
    aggregate = 0.5 * (np.trace(covariance) + mean @ mean - 3 - log_det)
    assert information > 1 and aggregate > 0.02
    error = scipy.stats.sem(health.information)
    encloses(health.information, health.information_above, information, error, 0.1)
    low, high = health.kl - health.information_above, health.aggregate
    encloses(low, high, aggregate, scipy.stats.sem(high), 0.1)

    _, kl = source.closed_form(x)
    np.testing.assert_allclose(health.by_dimension["z"].sum(1), kl.detach(), rtol=1e-10)
    difference = health.kl - kl.detach().numpy()  # the draw's noise around it
    assert abs(difference.mean()) < 4 * scipy.stats.sem(difference) < 0.2
    m, s = (x @ source.A.T + source.c).detach(), torch.as_tensor(s)
    each = torch.distributions.kl_divergence(dist.Normal(m, s), dist.Normal(0.0, 1.0))
    np.testing.assert_allclose(health.by_dimension["z"], each, rtol=1e-10)


def test_left_in_it_is_the_information_of_the_data_by_quadrature():
    source = PPCA(features=3, latent=1)
    source.c.data += 0.4
    three = source.data(3)
    # Copies leave the mixture as it is, and give it more draws.
    health = latent_health(ready(source, three), batches(three.repeat(1500, 1)), num_data=4500)
    m = (three @ source.A.T + source.c).detach().numpy()[:, 0]
    s = source.log_s.detach().exp().numpy()[0]
    z = np.linspace(-12, 12, 20_001)
    each = scipy.stats.norm.pdf(z[:, None], m, s)
    mixture, prior = each.mean(1), scipy.stats.norm.pdf(z)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_each = np.nan_to_num(each * np.log(each / mixture[:, None])).sum(0) * (z[1] - z[0])
        of_all = np.nan_to_num(mixture * np.log(mixture / prior)).sum() * (z[1] - z[0])
    assert 0.3 < of_each.mean() < 0.9 * math.log(3)
    for values, truth in ((health.information, of_each.mean()), (health.aggregate, of_all)):
        assert abs(values.mean() - truth) < 4 * scipy.stats.sem(values) < 0.1
    # By datum too, so that the average is over the right axis.
    np.testing.assert_allclose(health.information.reshape(-1, 3).mean(0), of_each, atol=0.07)
    assert np.ptp(of_each) > 0.1


def test_the_two_parts_are_the_whole():
    source = PPCA()
    x = source.data(60)
    health = latent_health(ready(source, x), batches(x))
    metrics = summarize_latents(health, None)
    whole = metrics["mutual_information"]["value"] + metrics["aggregate_kl"]["value"]
    assert whole == pytest.approx(health.kl.mean(), rel=1e-12)
    other = metrics["mutual_information"]["at_most"] + metrics["aggregate_kl"]["at_least"]
    assert other == pytest.approx(health.kl.mean(), rel=1e-12)
    error = scipy.stats.sem(health.information)
    assert metrics["mutual_information"]["standard_error"] == pytest.approx(error)
    # M times the two means of densities differ by the datum's own.
    own = np.exp(-health.information)
    left_out = np.exp(-health.information_above) * 59 / 60
    np.testing.assert_allclose(own - left_out, 1 / 60, rtol=1e-9)
    few = latent_health(ready(source, x), batches(x), num_data=40)
    assert len(few.kl) == 40


def test_a_guide_that_runs_for_every_pair_has_the_closed_form_too():
    source = Hierarchy()
    of_x = source.log_likelihood  # the guide is the posterior, so q(z) is the prior
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 7)))
    z2, noise1, noise = x[:, :1], x[:, 1:3], x[:, 3:]
    x = (z2 * source.a + source.t * noise1) @ source.W.T + source.noise * noise
    health = latent_health(ready(source, x), batches(x))
    likelihood = -0.5 * (noise**2).sum(1).numpy() - 4 * math.log(
        source.noise * (2 * math.pi) ** 0.5
    )
    information = likelihood - of_x(x)  # log p(x|z) - log p(x), whose mean is I(x; z)
    log_det = np.linalg.slogdet(np.cov(x.T.numpy()))[1]
    assert information.mean() == pytest.approx(
        0.5 * log_det - 4 * math.log(source.noise), abs=4 * scipy.stats.sem(information)
    )
    error = math.hypot(scipy.stats.sem(information), scipy.stats.sem(health.information))
    encloses(health.information, health.information_above, information.mean(), error, 0.25)
    assert abs(health.aggregate.mean()) < 0.2 and not health.by_dimension


class Separate:
    """Two sites; q ignores x for the first, and draws them in the model's order or the other."""

    def __init__(self, collapsed, turned=False):
        self.collapsed, self.turned = collapsed, turned

    def model(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
            a = pyro.sample("a", dist.Normal(0.5 * b[:, None].expand(-1, 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(a, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            if self.turned:
                a = pyro.sample("a", dist.Normal(0.7 * x, 0.8).to_event(1))
                pyro.sample("b", dist.Normal(0.3 * a.sum(-1), 0.9))
                return
            scale, loc = (1.0, 0.0) if self.collapsed else (0.5, 0.3)
            b = pyro.sample("b", dist.Normal(x.new_zeros(len(x)) + loc, scale))
            code = 0.5 * b[:, None].expand(-1, 2) if self.collapsed else 0.7 * x
            pyro.sample("a", dist.Normal(code, 1.0 if self.collapsed else 0.8).to_event(1))


def test_a_collapsed_guide_says_nothing():
    x = matrix(50, 2)
    health = latent_health(ready(Separate(True), x), batches(x))
    for values in (health.kl, health.information, health.information_above):
        np.testing.assert_allclose(values, 0, atol=1e-12)
    metrics = summarize_latents(health, None)
    assert (metrics["collapsed_units"]["value"], metrics["collapsed_units"]["latent_dim"]) == (3, 3)
    (said,) = warnings(metrics)
    assert "warning: posterior collapse: the code holds" in said and "0.00 nats" in said


def test_by_dimension_given_what_was_drawn_before():
    x = matrix(900, 2)
    health = latent_health(ready(Separate(False), x), batches(x))
    b = 0.5 * (0.25 + 0.09 - 1) - math.log(0.5)
    np.testing.assert_allclose(health.by_dimension["b"], np.full((200, 1), b), rtol=1e-12)
    # E over b ~ N(0.3, 0.25) of KL(N(0.7 x, 0.64) || N(b / 2, 1)), at one draw of b.
    a = 0.5 * (0.64 + (0.7 * x[:200] - 0.15).square() + 0.25 * 0.25 - 1) - math.log(0.8)
    difference = health.by_dimension["a"] - a.numpy()
    assert np.abs(difference.mean(0)).max() < 4 * scipy.stats.sem(difference).max() < 0.2
    assert summarize_latents(health, None)["collapsed_units"]["value"] == 0

    turned = latent_health(ready(Separate(False, turned=True), x), batches(x))
    total = sum(values.sum(1) for values in turned.by_dimension.values())
    np.testing.assert_allclose(total, turned.kl, rtol=1e-9)  # log-ratios at the draws


def test_global_latents_are_drawn_once():
    x = matrix(80, 3, seed=13)
    source = BayesianPPCA(80)
    pair = ready(source, x)
    source.seen.clear()
    health = latent_health(pair, batches(x))
    assert len({W.numpy().tobytes() for W in source.seen}) == 1
    assert health.information.mean() > 0.5


def test_what_is_not_defined_says_why():
    x = matrix(9, 2)
    pair = ready(GaussianMean(x), x)
    with pytest.raises(UsageError, match="no mutual information: the pair has no local latent"):
        latent_health(pair, batches(x))
    x = (torch.rand(9, 5) > 0.5).float()
    description = ready(Autoencoder((5,), latent_dim=2, hidden=[4]), x).description
    metrics = summarize_latents(None, no_density(description))
    assert all(
        m["value"] is None and "'z' carries no density" in m["reason"] for m in metrics.values()
    )

    exact = PPCA(exact=True)
    x = exact.data(20)
    metrics = summarize_latents(latent_health(ready(exact, x), batches(x)), None)
    assert metrics["collapsed_units"]["value"] is None
    assert "not independent" in metrics["collapsed_units"]["reason"]


def test_partial_collapse_and_a_wide_bracket_are_told():
    information = {"value": 4.5, "at_most": 17.25, "num_data": 100}
    units = {"value": 3, "latent_dim": 6}
    said = warnings({"mutual_information": information, "collapsed_units": units})
    assert "collapse in 3 of 6 latent dimensions" in said[0]
    assert "log 100 = 4.61" in said[1] and "between 4.50 and 17.25" in said[1]
    information["at_most"], units["value"] = 4.55, 2
    assert warnings({"mutual_information": information, "collapsed_units": units}) == []


def test_a_test_split_of_one_datum_has_what_one_datum_tells(tmp_path):
    """12 data of one's own: a tenth of them is one."""
    x = np.random.default_rng(0).random((12, 3)).astype(np.float32)
    how = {"epochs": 1, "num_samples": 5, "weight_samples": 2, "proposal": "guide", "show": False}
    net = {"hidden": [4], "latent_dim": 2, "likelihood": "gaussian"}
    run = pyro_aevb.fit("BayesianVAE", x, net, out=str(tmp_path / "run"), **how)
    metrics = run.results["metrics"]
    assert run.results["num_data"] == 1 and not run.results["notes"]
    for name in ("active_units", "mutual_information", "aggregate_kl", "collapsed_units"):
        assert metrics[name] == {"value": None, "reason": "needs more than one datum"}
    for name in ("elbo", "log_likelihood", "weight_kl"):
        assert math.isfinite(metrics[name]["value"])
    assert metrics["elbo"]["standard_error"] is None
