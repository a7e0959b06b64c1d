"""Pictures, summaries and numbers stand or fall alone, for every kind of likelihood; by SciPy."""

import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import torch
from harness import rendering
from pyro.distributions.transforms import SigmoidTransform
from scipy import stats
from scipy.special import expit, logit
from torch import nn
from torch.nn.functional import softplus

import pyro_aevb
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.parzen import parzen
from pyro_aevb.pairs.predict import decode, decode_grid, encode, traverse
from pyro_aevb.reports import assess as assessment
from pyro_aevb.reports import figures, plots
from pyro_aevb.reports.rehearsal import rehearse
from pyro_aevb.runs.prepare import prepare

D, K = 4, 3
UNIT = np.random.default_rng(0).uniform(0.05, 0.95, (40, D)).astype(np.float32)
COUNTS = np.random.default_rng(1).integers(0, K, (40, D)).astype(np.float32)


def dataset(x, test=None):
    x, test = (torch.from_numpy(np.asarray(v)) for v in (x, x if test is None else test))
    return DataSet("made", Split(x, None, 1), Split(x, None, 1), Split(test, None, 1), "", "none")


def positive(h):
    return softplus(h) + 0.1


def spread(h):
    return np.log1p(np.exp(h)) + 0.1


def two_normals(a, b):
    weights = dist.Categorical(logits=torch.stack([a, torch.zeros_like(a)], -1))
    return dist.MixtureSameFamily(weights, dist.Normal(torch.stack([a, b], -1), 0.4))


def two_normals_by_scipy(a, b):
    p, one, two = expit(a), stats.norm(a, 0.4), stats.norm(b, 0.4)
    log_density = lambda x: np.log(p * one.pdf(x) + (1 - p) * two.pdf(x))  # noqa: E731
    return SimpleNamespace(logpdf=log_density, mean=lambda: p * a + (1 - p) * b)


def logit_normal(a, b):
    return dist.TransformedDistribution(dist.Normal(a, b), [SigmoidTransform()])


def logit_normal_by_scipy(a, b):
    base = stats.norm(a, b)
    return SimpleNamespace(
        logpdf=lambda x: base.logpdf(logit(x)) - np.log(x) - np.log1p(-x),
        median=lambda: expit(base.median()),
    )


def continuous_bernoulli_by_hand(a, b):
    """Away from p = 1/2, where float32 cancels."""
    p = expit(a + 3)
    root = np.arctanh(1 - 2 * p)
    constant = np.log(2 * root / (1 - 2 * p))
    log_density = lambda x: constant + x * np.log(p) + (1 - x) * np.log1p(-p)  # noqa: E731
    return SimpleNamespace(logpdf=log_density, mean=lambda: p / (2 * p - 1) + 0.5 / root)


# Data, the likelihood of two heads, of which the second is positive, the same by SciPy, and what
# stands for it in pictures. PyTorch's p of counts is the probability of what is counted, SciPy's
# that of what ends it.
KINDS = {
    "Normal": (UNIT, dist.Normal, stats.norm, "mean"),
    "Laplace": (UNIT, dist.Laplace, stats.laplace, "mean"),
    "StudentT": (UNIT, partial(dist.StudentT, 3.0), partial(stats.t, 3), "mean"),
    "without a mean": (UNIT, partial(dist.StudentT, 0.7), partial(stats.t, 0.7), "mode"),
    "Cauchy": (UNIT, dist.Cauchy, stats.cauchy, "mode"),
    "mixture": (UNIT, two_normals, two_normals_by_scipy, "mean"),
    "VonMises": (UNIT, dist.VonMises, lambda a, b: stats.vonmises(b, a), "mean"),
    "LogNormal": (UNIT, dist.LogNormal, lambda a, b: stats.lognorm(b, scale=np.exp(a)), "mean"),
    "Gamma": (UNIT, lambda a, b: dist.Gamma(b, 1.0), lambda a, b: stats.gamma(b), "mean"),
    "Beta": (UNIT, lambda a, b: dist.Beta(b, 2.0), lambda a, b: stats.beta(b, 2), "mean"),
    "ContinuousBernoulli": (
        *(UNIT, lambda a, b: dist.ContinuousBernoulli(logits=a + 3)),
        *(continuous_bernoulli_by_hand, "mean"),
    ),
    "logit-normal": (UNIT, logit_normal, logit_normal_by_scipy, "median"),
    "Poisson": (COUNTS, lambda a, b: dist.Poisson(b), lambda a, b: stats.poisson(b), "mean"),
    "NegativeBinomial": (
        *(COUNTS, lambda a, b: dist.NegativeBinomial(b, logits=a)),
        *(lambda a, b: stats.nbinom(b, expit(-a)), "mean"),
    ),
    "Binomial": (
        *(COUNTS, lambda a, b: dist.Binomial(9, logits=a)),
        *(lambda a, b: stats.binom(9, expit(a)), "mean"),
    ),
}


class Linear(nn.Module):
    r"""A code of mean A x, and a likelihood whose parameters are linear in it, HEADS for each x."""

    heads = 2

    def __init__(self, name="Normal"):
        super().__init__()
        self.x, self.make, self.by_scipy, self.kind = KINDS[name]
        self.A, self.W = nn.Linear(D, 3), nn.Linear(3, D * self.heads)

    def likelihood(self, h):
        return self.make(h[..., 0], positive(h[..., 1])).to_event(1)

    def density(self, x, h):
        fn = self.by_scipy(h[0], spread(h[1]))
        return (fn.logpdf if hasattr(fn, "logpdf") else fn.logpmf)(x)

    def shown(self, h):
        fn = self.by_scipy(h[0], spread(h[1]))
        return fn.mean() if self.kind == "mean" else fn.median()

    def seen(self, x):
        return x

    def data(self, x):
        return x

    def model(self, x):
        x = self.seen(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1).to_event(1))
            h = self.W(z).view(len(x), D, self.heads)
            pyro.sample("x", self.likelihood(h), obs=self.data(x))

    def guide(self, x):
        x = self.seen(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.A(x), x.new_tensor(0.5)).to_event(1))

    def parameters_at_means(self, x):
        r"""The heads at the means of the codes of x, ``(heads, n, D)``, by NumPy."""
        A, a, W, b = (
            v.detach().double().numpy()
            for v in (self.A.weight, self.A.bias, self.W.weight, self.W.bias)
        )
        return np.moveaxis(((x @ A.T + a) @ W.T + b).reshape(len(x), D, self.heads), 2, 0)


class Tokens(Linear):
    r"""Categories, which have a mode and no mean."""

    heads = K

    def __init__(self):
        super().__init__()
        self.x, self.kind = COUNTS, "mode"

    def likelihood(self, h):
        return dist.Categorical(logits=h).to_event(1)

    def density(self, x, h):
        chosen = np.take_along_axis(h, x.astype(int)[None], 0)[0]
        return chosen - scipy.special.logsumexp(h, 0)

    def shown(self, h):
        return h.argmax(0)


class Double(Linear):
    r"""Nets in float64, which convert what they are given."""

    def __init__(self):
        super().__init__()
        self.double()

    def seen(self, x):
        return x.double()


FIGURES = {"convergence", "elbo_log_likelihood", "history", "latent_kl", "reconstructions"}
FIGURES |= {"samples", "latent", "traversals", "interpolations"}


def fitted(pair, data, folder, **options):
    options = {"epochs": 1, "num_samples": 20, "show": False, **options}
    return pyro_aevb.fit(pair, data, out=str(folder / "run"), **options)


def drawn_in(run):
    return {path.stem for path in run.figures.glob("*.png")}


@pytest.mark.parametrize("name", [*KINDS, "Tokens", "Double"])
def test_every_kind_of_likelihood_is_scored_decoded_and_drawn(name, tmp_path, capsys):
    source, titles = (
        Linear(name) if name in KINDS else {"Tokens": Tokens, "Double": Double}[name](),
        {},
    )
    x, kind = source.x, source.kind
    with pytest.MonkeyPatch.context() as patch:
        for name in ("distributions", "responses"):
            real = getattr(plots, name)
            patch.setattr(
                plots,
                name,
                lambda *a, _n=name, _r=real: titles.setdefault(_n, []).append(a) or _r(*a),
            )
        with nullcontext() if isinstance(source, Linear) else rendering():  # of one that is enough
            run = fitted(source, dataset(x), tmp_path, show=True)
    h = source.parameters_at_means(x)
    found = run.results["metrics"]["reconstruction_mean"]["value"]
    assert found == pytest.approx(source.density(x, h).sum(1).mean(), rel=1e-4)
    codes = encode(run.pair, torch.from_numpy(x))
    decoded = decode(run.pair, codes, torch.from_numpy(x))
    np.testing.assert_allclose(decoded, source.shown(h), rtol=1e-4, atol=1e-5)
    assert drawn_in(run) == FIGURES and not run.results["notes"]
    ((shown, draws, *_, title),) = titles["distributions"]
    np.testing.assert_array_equal(shown, x)
    assert draws.shape == x.shape and title == "draws of p(x|z)"
    walks = [(names[0], what, along) for *_, names, what, along in titles["responses"]]
    assert walks[0] == ("x[0]", f"{kind}s of p(x|z)", "value of the latent dimension")
    assert "log_likelihood" in capsys.readouterr().out


class OneHot(Tokens):
    r"""A likelihood over events of another shape than the data have."""

    def data(self, x):
        return nn.functional.one_hot(x.long(), K).float()

    def likelihood(self, h):
        return dist.OneHotCategorical(logits=h).to_event(1)


def test_a_likelihood_of_another_shape_than_the_data_is_scored_and_not_drawn(tmp_path):
    source = OneHot()
    said = "its likelihood is of shape (4, 3), and data are of (4,)"
    early = rehearse(prepare(source, dataset(COUNTS), device="cpu"))
    assert early == [
        f"note: {name} is not drawn: {said}" for name in ("reconstructions.png", "samples.png")
    ]
    run = fitted(source, dataset(COUNTS), tmp_path)
    density = source.density(COUNTS, source.parameters_at_means(COUNTS)).sum(1).mean()
    found = run.results["metrics"]["reconstruction_mean"]["value"]
    assert found == pytest.approx(density, rel=1e-5)
    decoded = decode(run.pair, encode(run.pair, torch.from_numpy(COUNTS)), torch.from_numpy(COUNTS))
    probabilities = scipy.special.softmax(source.parameters_at_means(COUNTS), 0)
    np.testing.assert_allclose(decoded, np.moveaxis(probabilities, 0, 2), rtol=1e-4)
    assert drawn_in(run) == FIGURES - {"reconstructions", "samples", "traversals", "interpolations"}
    assert len(run.results["notes"]) == 4 and all(said in note for note in run.results["notes"])


# One that fails


def test_a_figure_that_fails_costs_nothing_else(tmp_path, monkeypatch, capsys, drawn):
    source, data = Double(), dataset(UNIT)
    whole = fitted(source, data, tmp_path)
    assert drawn_in(whole) == FIGURES
    assert [figure.get_suptitle() for figure in drawn] == ["Double on made"] * len(FIGURES)

    def fail(*args, **options):
        raise RuntimeError("no ink\nleft")

    monkeypatch.setattr(plots, "distributions", fail)
    monkeypatch.setattr(plots, "convergence", fail)
    before = whole.results
    again = pyro_aevb.evaluate(whole, num_samples=20, pair=source, data=data)
    assert drawn_in(whole) == FIGURES - {"samples", "convergence"}  # none from earlier
    assert again["metrics"] == before["metrics"]
    notes = [f"note: {name}.png is not drawn: RuntimeError: no ink left" for name in
             ("samples", "convergence")]  # fmt: skip
    assert again["notes"] == whole.results["notes"] == notes
    out = " ".join(capsys.readouterr().out.split())
    assert "log_likelihood" in out and all(note in out for note in notes)
    # Estimators and other data draw figures too, after what they found is kept.
    monkeypatch.setattr(plots, "against", fail)
    found = pyro_aevb.evaluate(whole, against="noise", num_samples=5, pair=source, data=data)
    assert whole.plot("history").get_suptitle() == drawn[-1].get_suptitle() == "Double on made"
    area = found["against"]["noise"]["metrics"]["reconstruction"]["value"]
    assert 0 <= area <= 1 and whole.results["against"] == found["against"]
    assert "note: against-noise.png is not drawn: RuntimeError: no ink left" in found["notes"]


def test_a_title_has_the_last_name_of_a_path(tmp_path):
    results = {"pair": "VAE", "data": "/home/me/faces/"}
    assert figures._title(SimpleNamespace(held=None, results=results)) == "VAE on faces"
    assert figures._title(pyro_aevb.Run(tmp_path / "unscored")) == "unscored"


def test_a_summary_that_fails_costs_nothing_else(tmp_path, monkeypatch):
    source, data = Double(), dataset(UNIT)
    run = fitted(source, data, tmp_path)
    before = run.results["metrics"]

    def fail(*args, **options):
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr(assessment, "latent_health", fail)
    after = pyro_aevb.evaluate(run, num_samples=20, show=False, pair=source, data=data)["metrics"]
    failed = {"mutual_information", "aggregate_kl", "collapsed_units"}
    for name in before:
        if name in failed:
            reason = "it could not be computed, IndexError: index 7 is out of bounds"
            assert after[name] == {"value": None, "reason": reason}
        else:
            assert after[name] == before[name], name
    assert before["mutual_information"]["value"] is not None


def test_what_cannot_be_scored_is_said_before_the_first_step(tmp_path):
    class Own(Linear):
        def model(self, x):
            if len(x) == 4 and torch.equal(x[:2], x[2:]):  # as two draws of two data are scored
                raise KeyError("seen twice")
            super().model(x)

    with pytest.raises(UsageError, match="Own cannot be scored: KeyError: 'seen twice'"):
        fitted(Own(), dataset(UNIT), tmp_path)
    assert not (tmp_path / "run").exists()


class Bounded(Linear):
    r"""Uniform around a mean: data far from it have no density at all."""

    heads = 1

    def likelihood(self, h):
        low = 0.1 * h[..., 0].tanh() - 0.5
        return dist.Uniform(low, low + 2, validate_args=False).to_event(1)


def test_a_number_that_is_not_finite_is_not_defined_and_the_others_are_there(tmp_path, capsys):
    far = UNIT.copy()
    far[3, 2] = 9.0
    data = dataset(UNIT, far)
    run = fitted(Bounded(), data, tmp_path, show=True)
    metrics = run.results["metrics"]
    for name in ("reconstruction", "elbo", "log_likelihood"):
        reason = "it is -inf, not a finite number"
        assert metrics[name]["value"] is None and metrics[name]["reason"] == reason, name
    assert metrics["training_elbo"]["value"] > -D * math.log(2) - 5
    loc = encode(run.pair, torch.from_numpy(far))["z"].double().numpy()
    kl = 0.5 * (0.25 + loc**2 - 1 - np.log(0.25)).sum(1)
    assert metrics["kl"]["value"] == pytest.approx(kl.mean(), rel=1e-5)
    said = " ".join(capsys.readouterr().out.split())
    assert "log_likelihood, reconstruction: it is -inf, not a finite number" in said


# Walks and windows


def test_codes_are_decoded_in_the_precision_of_the_pair():
    source = Double()
    pair = prepare(source, dataset(UNIT), device="cpu").pair
    points = np.random.default_rng(3).normal(size=(7, 3))
    W, b = source.W.weight.detach().numpy(), source.W.bias.detach().numpy()
    expected = (points @ W.T + b).reshape(7, D, 2)[..., 0]
    x = torch.from_numpy(UNIT)
    np.testing.assert_allclose(decode_grid(pair, points, x), expected, rtol=1e-12)


def test_one_datum_is_walked_from_as_several_are():
    class Squeezing(Linear):
        def seen(self, x):
            assert x.squeeze().dim() == 2  # as a net that squeezes a whole batch needs it
            return x

    source = Squeezing()
    pair = prepare(source, dataset(UNIT), device="cpu").pair
    pair.train()
    A, a, W, b = (
        v.detach().numpy() for v in (source.A.weight, source.A.bias, source.W.weight, source.W.bias)
    )
    code = A @ UNIT[0] + a
    walk = traverse(pair, torch.from_numpy(UNIT[:1]), [2], np.array([-1.0, 2.0]))
    for image, value in zip(walk[0], (-1.0, 2.0), strict=True):
        z = np.array([code[0], code[1], value])
        np.testing.assert_allclose(image, (W @ z + b).reshape(D, 2)[:, 0], rtol=1e-5, atol=1e-6)


def test_a_code_without_a_prior_is_not_drawn_from_what_stands_in_for_it():
    class Masked(Linear):
        def model(self, x):
            with pyro.plate("data", len(x)):
                prior = dist.Normal(x.new_zeros(len(x), 3), 1).mask(False)
                z = pyro.sample("z", prior.to_event(1))
                pyro.sample("x", self.likelihood(self.W(z).view(len(x), D, 2)), obs=x)

    source, x = Masked(), torch.from_numpy(UNIT[:5])
    pair = prepare(source, dataset(UNIT), device="cpu").pair
    z = torch.randn(5, 3)
    expected = source.W(z).view(5, D, 2)[..., 0].detach()
    torch.testing.assert_close(decode(pair, {"z": z}, x), expected)
    with pytest.raises(UsageError, match="cannot decode without values of 'z': .*no prior"):
        decode(pair, {}, x)


def test_a_parzen_window_needs_means_of_the_shape_of_data_and_a_width():
    prepared = prepare(OneHot(), dataset(COUNTS), device="cpu")
    with pytest.raises(UsageError, match=r"of shape \(4,\), and those .* have shape \(4, 3\)"):
        parzen(prepared.pair, prepared.test, prepared.valid, 10)

    class Constant(Linear):
        def likelihood(self, h):
            return dist.Normal(h[..., 0] * 0 + 0.5, 1.0).to_event(1)

    same = np.full((40, D), 0.5, np.float32)
    for x, refused in ((same, True), (UNIT, False)):
        prepared = prepare(Constant(), dataset(x), device="cpu")
        if refused:
            with pytest.raises(UsageError, match="equals every sample"):
                parzen(prepared.pair, prepared.test, prepared.valid, 10)
            continue
        metric, values = parzen(prepared.pair, prepared.test, prepared.valid, 10)
        s = metric["bandwidth"]
        expected = stats.norm(0.5, s).logpdf(UNIT).sum(1)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert s == pytest.approx(np.sqrt(((UNIT - 0.5) ** 2).mean()), rel=0.03)
