"""Annealed importance sampling and bidirectional Monte Carlo against exact log-likelihoods."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import (
    PPCA,
    BayesianPPCA,
    GaussianMean,
    Hierarchy,
    batches,
    posterior,
    ready,
    with_data,
)
from scipy.special import logsumexp
from sklearn.decomposition import FactorAnalysis

import pyro_aevb
from pyro_aevb.data.sets import load
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.path import temperatures
from pyro_aevb.estimators.reciprocal import Reciprocal
from pyro_aevb.models import VAE
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.reports import plots
from pyro_aevb.runs.prepare import restore


def ppca(latent, features, scale=1.0):
    """A pair whose guide is near its posteriors."""
    source = PPCA(latent=latent, features=features)
    source.W.data *= scale
    gain, covariance = (value.detach() for value in posterior(source.W, source.noise))
    source.A.data, source.c.data = 0.9 * gain, 0.1 - gain @ source.mu.detach()
    source.log_s.data = 0.5 * covariance.diagonal().log() + 0.2
    return source


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_weights_are_unbiased_both_ways(start):
    """E[w] = p(x); on the way back E[1/w] = 1/p(x) over simulated data, as chains start alike."""
    source, x, pair = with_data(ppca(2, 3, 0.25), 2)
    settings = {"num_temperatures": 5, "leapfrog_steps": 2, "schedule": "linear", "start": start}
    there = Annealer(pair, x, 10000, **settings)(batches(x))
    many = torch.zeros(1000, 3).double()
    bracket = Annealer(pair, x, 10, **settings).bracket(many)
    for annealed, data, sign in (
        (there, x, 1),
        (bracket.there, bracket.x, 1),
        (bracket.back, bracket.x, -1),
    ):
        ratios = np.exp(sign * (annealed.log_weights - source.log_likelihood(data))).mean(0)
        if data is x:
            spread = annealed.log_weights.std(0)
            assert (spread > 0.1).all() and (spread < 2).all()
            np.testing.assert_allclose(ratios, 1, atol=0.06)
        else:
            assert ratios.mean() == pytest.approx(1, abs=3 * ratios.std() / 1000**0.5)


@pytest.mark.parametrize(
    "latent, features, scale, num_temperatures, start",
    [(2, 4, 1.0, 100, "prior"), (50, 60, 0.1, 150, "guide")],
)
def test_the_bounds_meet_around_the_exact_log_likelihood(
    latent, features, scale, num_temperatures, start
):
    """On 50 simulated data, from below and from above."""
    source = ppca(latent, features, scale)
    x = torch.zeros(50, features).double()
    pair = ready(source, source.data(5))
    bracket = Annealer(pair, x, 16, num_temperatures, 5, start=start).bracket(x)
    exact = source.log_likelihood(bracket.x)
    below, above = bracket.there.lower() - exact, bracket.back.upper() - exact
    errors = [3 * bound.std() / 50**0.5 for bound in (below, above)]
    assert max(errors) < 0.13
    assert below.mean() < errors[0] and above.mean() > -errors[1]
    assert abs(below.mean()) < 0.08 and abs(above.mean()) < 0.08
    assert abs(above.mean() - below.mean()) < 0.08
    if latent > 2:  # there the step size has reached its largest
        late = bracket.there.acceptance[num_temperatures // 2 :]
        assert late.mean() == pytest.approx(0.65, abs=0.05)


def test_the_acceptance_is_the_mean_over_data(monkeypatch):
    monkeypatch.setattr("pyro_aevb.engine.streams.DATA_BLOCK", 3)
    source = ppca(2, 4, 1.0)
    data = batches(source.data(4))
    annealer = Annealer(ready(source, source.data(4)), source.data(4), 4, 10, 2)
    three, one = (annealer(data, blocks=range(i, i + 1)).acceptance for i in (0, 1))
    assert np.abs(three - one).max() > 1e-4
    np.testing.assert_allclose(annealer(data).acceptance, (3 * three + one) / 4)


def test_a_spoiled_guide_moves_importance_sampling_and_not_annealing():
    """Its scale halved or doubled, its mean shifted; k-hat sees weights of heavy tails."""
    source = ppca(4, 8, 0.7)
    x = source.data(30)
    exact = source.log_likelihood(x)
    scale = 0.5 * posterior(source.W, source.noise)[1].diagonal().log().detach()
    shifts, shapes = {"importance": [], "prior": [], "guide": []}, []
    changes = (
        lambda: None,
        lambda: source.log_s.data.sub_(np.log(2)),
        lambda: source.log_s.data.add_(np.log(2)),
        lambda: source.c.data.add_(0.7),
    )
    for number, change in enumerate(changes):
        source.log_s.data = scale.clone()
        change()
        pair = ready(source, x[:5])
        scores = score(pair, batches(x), 200)
        shifts["importance"].append((scores.log_weight - exact).mean())
        shapes.append((np.mean(scores.pareto_k > 0.7), scores.ess.mean()))
        # Chains from the prior do not know the guide: of two it is enough to see that.
        for start in ("prior", "guide") if number in (0, 3) else ("guide",):
            found = Annealer(pair, x[:5], 10, 100, 5, start=start)(batches(x))
            shifts[start].append((found.lower() - exact).mean())
    best, halved, doubled, shifted = shifts["importance"]
    assert best > -0.02 and halved < -0.2 and doubled < -0.02 and shifted < -0.8
    unreliable, samples = np.transpose(shapes)
    assert unreliable[0] < 0.15 and unreliable[1] > 0.4 and unreliable[3] > 0.9
    assert samples[1:].max() < 0.5 * samples[0]  # too wide a guide has bounded weights, but few
    assert np.ptp(shifts["prior"]) == 0
    for start in ("prior", "guide"):
        np.testing.assert_allclose(shifts[start], 0, atol=0.08)


class MixtureOfCodes(torch.nn.Module):
    """A code from two normals, and a datum around it."""

    weight, loc, scale = torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 1])

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def model(self, x):
        parts = dist.Normal(self.loc, self.scale).expand([1, 2]).to_event(0)
        prior = dist.MixtureSameFamily(
            dist.Categorical(self.weight.expand(1, 2)),
            torch.distributions.Independent(torch.distributions.Normal(parts.loc, parts.scale), 0),
        )
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior.expand([1]).to_event(1))
            pyro.sample("x", dist.Normal(z + self.shift, 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


def test_a_mixture_is_a_real_valued_prior():
    """Its p(x) is a mixture too; the mean of 40 bounds has an error of about 0.01."""
    source, x = MixtureOfCodes(), torch.linspace(-4, 4, 40)[:, None]
    found = Annealer(ready(source, x), x[:5], 16, 100, 5)(batches(x)).lower()
    spread = (source.scale**2 + 0.25).sqrt()
    parts = source.weight.log() + torch.distributions.Normal(source.loc, spread).log_prob(x)
    np.testing.assert_allclose((found - parts.logsumexp(1).numpy()).mean(), 0, atol=0.04)


def test_every_estimator_agrees_with_quadrature_on_a_bernoulli_decoder():
    torch.manual_seed(2)
    source = VAE((30,), latent_dim=2, hidden=[16], init="torch")
    for parameter in source.decoder.parameters():
        parameter.data *= 3.0
    x = (torch.rand(12, 30) < 0.5).float()
    pair = ready(source, x)
    grid = torch.linspace(-7, 7, 141)
    z = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).view(-1, 1, 2)
    annealer = Annealer(pair, x, 50, 100, 5)

    def exact(x):
        with torch.no_grad(), pair.active(), WholeBatch():
            log_joint = annealer.joint.terms(x, z.expand(-1, 12, 2)).sum(0).double().numpy()
        return logsumexp(log_joint, 0) + 2 * np.log(14 / 140)

    assert np.ptp(exact(x)) > 2
    bracket = annealer.bracket(x)
    for found, data in (
        (annealer(batches(x)).lower(), x),
        (bracket.there.lower(), bracket.x),
        (bracket.back.upper(), bracket.x),
        (score(pair, batches(x), 4000).log_weight[0], x),
        (Reciprocal(pair, x, 200, 100, 60, 20).estimate(batches(x)), x),
    ):
        np.testing.assert_allclose(found, exact(data), atol=0.15)
        assert (found - exact(data)).mean() == pytest.approx(0, abs=0.03)


def test_factors_of_digits_agree_with_scikit_learn():
    """To 0.01 of 46 nats; of the central pixels, as the outer ones hardly vary."""
    digits = load("mnist5k")
    x, train = (
        (split.images[:1500, 0, 8:20, 8:20].double() / split.scale).flatten(1)
        for split in (digits.test, digits.train)
    )
    x, fitted = x[:100], FactorAnalysis(5).fit(train)
    noise = torch.as_tensor(fitted.noise_variance_).double().sqrt()
    source = PPCA(features=144, latent=5, noise=noise)
    source.W.data = torch.tensor(fitted.components_.T)
    source.mu.data = torch.tensor(fitted.mean_)
    gain, covariance = (value.detach() for value in posterior(source.W, noise))
    source.A.data, source.c.data = gain, -gain @ source.mu.detach()
    source.log_s.data = 0.5 * covariance.diagonal().log() + 0.2
    expected, pair = fitted.score_samples(x), ready(source, x)
    for found in (
        score(pair, batches(x), 5000).log_weight[0],
        Annealer(pair, x, 64, 40, 5, start="guide")(batches(x)).lower(),
    ):
        np.testing.assert_allclose(found, expected, atol=0.15)
        assert found.mean() == pytest.approx(expected.mean(), abs=0.01)


def test_two_layers_of_codes_and_weights():
    hierarchy = Hierarchy(widen=1.3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 4)))
    pair = ready(hierarchy, x)
    for start in ("prior", "guide"):
        error = Annealer(pair, x, 10, 120, 4, start=start)(batches(x)).lower()
        error -= hierarchy.log_likelihood(x)
        assert error.mean() == pytest.approx(0, abs=0.05)
    # Each draw of the weights is the one that importance sampling scores with.
    weighted = BayesianPPCA(num_data=900, spread=0.4)
    x = x[:, :3]
    pair = ready(weighted, x)
    annealer = Annealer(pair, x, 10, 120, 4, seed=4)
    sampled = score(pair, batches(x), 3000, 3, seed=4).log_weight
    for s in range(3):
        error = annealer(batches(x), s).lower() - sampled[s]
        assert error.mean() == pytest.approx(0, abs=0.05)
        assert np.abs(sampled[s] - sampled[s - 1]).mean() > 0.5


def test_values_do_not_depend_on_memory_or_on_how_they_are_computed():
    source, x, pair = with_data(ppca(2, 4), 23)
    values, done = [], []
    for settings in (
        {"compile": "off"},
        {"compile": "off", "memory": 4096},
        {"compile": "auto"},
        {"compile": "auto", "memory": 20000},
    ):
        annealer = Annealer(pair, x, 3, 12, 4, seed=5, **settings)
        done.append([])
        values.append(annealer(batches(x), progress=done[-1].append).log_weights)
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=1e-9)
    assert values[0].shape == (3, 23) and done == [[23] * 12] * 4
    # Another seed and another call: other draws, and the same ones.
    again = Annealer(pair, x, 3, 12, 4, seed=6)
    np.testing.assert_array_equal(again(batches(x)).log_weights, again(batches(x)).log_weights)
    assert np.abs(again(batches(x)).log_weights - values[0]).min() > 0


def test_schedules_follow_their_formulas():
    np.testing.assert_allclose(temperatures(4, "linear"), [0, 0.25, 0.5, 0.75, 1])
    logistic = 1 / (1 + np.exp(-4 * (2 * np.arange(11) / 10 - 1)))
    expected = (logistic - logistic[0]) / (logistic[-1] - logistic[0])
    np.testing.assert_allclose(temperatures(10), expected, atol=1e-12)


def test_what_cannot_be_annealed_says_why():
    source, x, pair = with_data(ppca(2, 3), 4)
    for settings, said in (
        ({"num_chains": 0}, "num_chains is 0"),
        ({"leapfrog_steps": 0}, "leapfrog_steps is 0"),
        ({"num_temperatures": 0}, "num_temperatures is 0"),
        ({"acceptance": 1.5}, "acceptance is 1.5"),
        ({"schedule": "cubic"}, "schedule is 'cubic'; it must be sigmoid or linear"),
        ({"start": "encoder"}, "start='encoder' is unknown"),
        ({"seed": -1}, "--seed is -1"),
        ({"compile": "yes"}, "--compile is 'yes'"),
    ):
        with pytest.raises(UsageError, match=said):
            Annealer(pair, x, **settings)
    with pytest.raises(UsageError, match="no latent site inside the data plate"):
        Annealer(ready(GaussianMean(x), x), x)

    class Delta(PPCA):
        def guide(self, x):
            with self.plate(x):
                pyro.sample("z", dist.Delta(x @ self.A.T).to_event(1))

        def model(self, x):
            float(x.sum())
            super().model(x)

    pair = ready(Delta(features=3), x)
    with pytest.raises(UsageError, match="its guide has no density at given codes: latent site"):
        Annealer(pair, x, start="guide")
    with pytest.raises(
        UsageError, match="--compile on: Delta has to be annealed eagerly: it reads"
    ):
        Annealer(pair, x, 2, 2, 2, compile="on")(batches(x))
    said = []
    found = Annealer(pair, x, 2, 2, 2, compile="auto", say=said.append)(batches(x))
    assert found.log_weights.shape == (2, 4)
    assert len(said) == 1 and "is annealed eagerly: it reads a value back" in said[0]


def test_evaluate_adds_both_bounds_to_the_results(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "convergence", lambda *drawn: figures.append(drawn))
    settings = {"data": "digits", "device": "cpu", "show": False, "num_samples": 30, "epochs": 2}
    settings |= {"num_data": 20, "proposal": "guide"}
    run = pyro_aevb.fit("VAE", pair_parameters={"hidden": [8]}, out=str(tmp_path / "r"), **settings)
    few = {"num_chains": 4, "num_temperatures": 30, "leapfrog_steps": 3}
    results = pyro_aevb.evaluate(run, "ais", few, num_data=12, show=False, device="cpu")
    metric, prepared = results["metrics"]["ais_lower"], restore(run, "cpu")
    first = prepared.test.first(12)
    direct = Annealer(prepared.pair, first.take(torch.arange(5)), **few)(first).lower()
    np.testing.assert_array_equal(run.per_datum("ais", "ais_lower"), direct)
    assert metric["value"] == pytest.approx(direct.mean())
    assert (metric["num_chains"], metric["num_temperatures"], metric["num_data"]) == (4, 30, 12)
    assert metric["above_log_likelihood"]["value"] == pytest.approx(
        (direct - run.per_datum("predictive", "log_likelihood")[:12]).mean()
    )
    results = pyro_aevb.evaluate(run, "bdmc", few, num_data=12, show=False, device="cpu")
    values = {
        name: results["metrics"][f"bdmc_{name}"]["value"] for name in ("lower", "upper", "gap")
    }
    assert values["gap"] == pytest.approx(values["upper"] - values["lower"])
    assert 0 < values["gap"] < 5 and "ais_lower" in results["metrics"]
    # One figure of all, on the data that all have seen.
    margin = {"ais_lower": ("bdmc_gap", values["gap"])}
    assert [drawn[3] for drawn in figures] == [{}, {}, margin]
    (curve,), bounds = figures[-1][0].values(), figures[-1][2]
    bound = run.per_datum("convergence", "iwae_bound")[:, :12]
    np.testing.assert_array_equal(curve.values, bound)
    assert bounds["ais_lower"] == pytest.approx(direct.mean())
    # With uncertain weights, of each draw of which there is one bound.
    run = pyro_aevb.fit(
        "BayesianVAE", pair_parameters={"hidden": [8]}, out=str(tmp_path / "w"), **settings
    )
    few |= {"weight_samples": 2}
    metric = pyro_aevb.evaluate(run, "ais", few, num_data=12, show=False)["metrics"]["ais_lower"]
    assert metric["weight_samples"] == 2
    prepared = restore(run, "cpu")
    first, _ = prepared.test.first(12), few.pop("weight_samples")
    annealer = Annealer(prepared.pair, first.take(torch.arange(5)), **few)
    draws = np.stack([annealer(first, s).lower() for s in range(2)])
    assert metric["value"] == pytest.approx((logsumexp(draws, 0) - np.log(2)).mean())
