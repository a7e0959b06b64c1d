"""Pairs of modules that were trained elsewhere: closed forms, other packages' losses, the page."""

import copy
import math
import re
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import marginal, posterior, ready
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import nn

import pyro_aevb
from pyro_aevb.data import Batches, Split, from_arrays
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.pairs.density import local_terms
from pyro_aevb.pairs.predict import decode

PAGE = Path(__file__).parents[1] / "docs" / "elsewhere.md"
FEW = 50
GIVEN = dict(encoder_gives="mean_scale", likelihood="bernoulli", decoder_gives="logits")


class Fixed(nn.Module):
    """A net that gives what it was made of, for each datum."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return tuple(output.expand(len(x), *output.shape[1:]) for output in self.outputs)


def snippets(section):
    """The code of a section of the page, in order."""
    text = PAGE.read_text()
    text = text[text.index(f"## {section}\n") + 1 :].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def follow(section, names, folder, monkeypatch):
    """Run a section of the page in a folder, with few data, and nothing shown or drawn."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    fewer = f'epochs=0, num_data={FEW}, num_samples=200, show=False, device="cpu")'
    for source in snippets(section):
        exec(source.replace("epochs=0)", fewer), names)


def assert_unbiased(errors):
    """Monte Carlo errors of data cancel, as far as their standard error goes."""
    errors = np.asarray(errors)
    assert abs(errors.mean()) < 4 * scipy.stats.sem(errors)


class Named(nn.Module):
    """Outputs by their names, in another order than that of the words."""

    def __init__(self, net, first="mean", second="log_scale"):
        super().__init__()
        self.net, self.names = net, (second, first)

    def forward(self, x):
        mean, log_scale = self.net(x).chunk(2, 1)
        return dict(zip(self.names, (log_scale, mean), strict=True))


def test_outputs_with_names_count_by_these():
    torch.manual_seed(0)
    net, decoder, x = nn.Linear(3, 4), nn.Linear(2, 3), torch.randn(5, 3)
    how = {"likelihood": "gaussian", "decoder_gives": "mean", "latent_dim": 2, "scale": 1.0}
    words = {"encoder_gives": "mean_log_scale", **how}
    sites = [
        poutine.trace(pyro_aevb.pair(encoder, decoder, **words).guide).get_trace(x).nodes["z"]["fn"]
        for encoder in (net, Named(net), Named(net, "loc", "log_std"))
    ]
    for site in sites[1:]:
        assert torch.equal(site.mean, sites[0].mean) and torch.equal(site.stddev, sites[0].stddev)
    own = pyro_aevb.pair(
        *(Named(net, "a", "b"), decoder),
        encoder_gives=lambda a, b: dist.Normal(a, b.exp()).to_event(1),
        **how,
    )
    assert torch.equal(poutine.trace(own.guide).get_trace(x).nodes["z"]["fn"].mean, sites[0].mean)
    with pytest.raises(UsageError, match="a net gives b, a, and encoder_gives='mean_log_scale' is"):
        poutine.trace(pyro_aevb.pair(Named(net, "a", "b"), decoder, **words).guide).get_trace(x)


class Decoder(nn.Module):
    """A linear decoder, with a column that is added to its mean."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 5).double()

    def forward(self, z, offset):
        return self.linear(z) + offset


def test_log_likelihood_of_a_linear_vae_is_its_closed_form():
    decoder, noise = Decoder(), 0.6
    weight, bias = decoder.linear.weight.detach(), decoder.linear.bias.detach()
    x, offset = torch.randn(20, 5).double(), torch.randn(20, 1).double()
    gain, covariance = posterior(weight, noise)
    encoder = nn.Linear(5, 4).double()
    with torch.no_grad():  # near the posterior, but blind to the offset
        encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        encoder.bias.copy_(torch.cat([-gain @ bias, covariance.diagonal().log() + 0.5]))
    pair = pyro_aevb.pair(
        encoder,
        decoder,
        encoder_gives="mean_log_variance",
        likelihood="gaussian",
        decoder_gives="mean",
        scale=noise,
        latent_dim=2,
    )
    split = Split(x, None, 1, {"offset": offset})
    columns = Batches(split, "none", columns=["offset"])
    loaded = ready(pair, columns.take(torch.arange(5)))
    expected = marginal(weight, bias, noise).logpdf((x - offset).numpy())

    found = MarginalLikelihood(loaded, target=0.03, compile="off")(columns)
    np.testing.assert_allclose(found.log_likelihood[0], expected, atol=0.1)
    torch.testing.assert_close(copied_trace(pair, x, offset), 1 + decoder.linear.bias)
    scores = Scorer(loaded, 500, compile="off")(columns)
    mean = (x @ gain.T - gain @ bias).numpy()
    variance = covariance.diagonal().numpy() * math.exp(0.5)
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
    np.testing.assert_allclose(scores.kl[0], kl, rtol=1e-9)
    residual = (x - offset - bias).numpy() - mean @ weight.numpy().T
    squares = (residual**2).sum(1) + (weight.numpy() ** 2 @ variance).sum()
    reconstruction = -squares / (2 * noise**2) - 2.5 * math.log(2 * math.pi * noise**2)
    errors = scores.reconstruction[0] - reconstruction
    assert_unbiased(errors)
    assert np.abs(errors).max() < 1


def copied_trace(pair, x, offset):
    """The bias that the model of a copy adds, of which the copy's own is raised by 1."""
    copied = copy.deepcopy(pair)
    with torch.no_grad():
        copied.decoder.linear.bias += 1
    with poutine.condition(data={"z": torch.zeros(len(x), 2).double()}):
        site = poutine.trace(copied.model).get_trace(x, offset=offset).nodes["x"]
    return (site["fn"].mean - offset)[0].detach()


S = torch.tensor([[0.3, 1.7]])


@pytest.mark.parametrize(
    "gives, second",
    [
        ("mean_scale", S),
        ("mean_variance", S**2),
        ("mean_log_variance", 2 * S.log()),
        ("mean_log_scale", S.log()),
        (lambda mean, s, _: dist.Normal(mean, s).to_event(1), S),
    ],
)
def test_an_encoder_gives_what_it_is_said_to_give(gives, second):
    mean = torch.tensor([[0.5, -1.0]])
    extra = (mean,) if callable(gives) else ()
    made = GIVEN | {"encoder_gives": gives, "latent_dim": 2}
    pair = pyro_aevb.pair(Fixed(mean, second, *extra), nn.Linear(2, 3), **made)
    x, z = torch.ones(4, 3), torch.randn(4, 2)
    loaded = ready(pair, x)
    found = local_terms(loaded, loaded.guide, x, {"z": z})["z"]
    expected = scipy.stats.norm(mean, S).logpdf(z).sum(1)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)


M, T = torch.tensor([[0.4, 2.5, 7.0]]), torch.tensor([[0.7, 3.0, 12.0]])
COUNTS = torch.tensor([[0.0, 3.0, 11.0]])
BITS, HALF = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[0.2, 0.5, 0.9]])
LIKELIHOODS = [
    ("bernoulli", "logits", [HALF.logit()], BITS, scipy.stats.bernoulli(HALF).logpmf),
    ("bernoulli", "probabilities", [HALF], BITS, scipy.stats.bernoulli(HALF).logpmf),
    *(
        ("gaussian", gives, [M, second], BITS, scipy.stats.norm(M, T).logpdf)
        for gives, second in {
            "mean_scale": T,
            "mean_variance": T**2,
            "mean_log_variance": 2 * T.log(),
            "mean_log_scale": T.log(),
        }.items()
    ),
    ("poisson", "rate", [M], COUNTS, scipy.stats.poisson(M).logpmf),
    ("poisson", "log_rate", [M.log()], COUNTS, scipy.stats.poisson(M).logpmf),
    *(
        ("negative_binomial", gives, outputs, COUNTS, scipy.stats.nbinom(T, T / (T + M)).logpmf)
        for gives, outputs in {
            "mean_dispersion": [M, T],
            "total_count_logits": [T, M.log() - T.log()],
        }.items()
    ),
]


@pytest.mark.parametrize("likelihood, gives, outputs, x, expected", LIKELIHOODS)
def test_a_decoder_gives_what_it_is_said_to_give(likelihood, gives, outputs, x, expected):
    made = dict(encoder_gives="mean_scale", likelihood=likelihood, decoder_gives=gives)
    pair = pyro_aevb.pair(Fixed(S, S), Fixed(*outputs), **made, latent_dim=2)
    few = x.expand(2, 3).contiguous()
    loaded = ready(pair, few)
    found = local_terms(loaded, loaded.model, few, {"z": torch.zeros(2, 2)})["x"]
    np.testing.assert_allclose(found, expected(x).sum(1).repeat(2), rtol=1e-5)


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self):
        return dist.Normal(self.loc, 0.5)


def test_a_prior_of_ones_own_is_a_part_of_the_pair_and_flat_outputs_are_images():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Sigmoid())
    pair = pyro_aevb.pair(net, nn.Linear(2, 12), **GIVEN, prior=Learned())
    x, z = torch.rand(3, 1, 3, 4).round(), torch.randn(3, 2)
    loaded = ready(pair, x)
    assert "pair.prior.loc" in loaded.trainable()
    found = local_terms(loaded, loaded.model, x, {"z": z})
    expected = scipy.stats.norm([1, -2], 0.5).logpdf(z).sum(1)
    np.testing.assert_allclose(found["z"].detach(), expected, rtol=1e-5)
    means = pair.decoder(z).sigmoid().view(3, 1, 3, 4)
    torch.testing.assert_close(decode(loaded, {"z": z}, x), means.detach())


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"decoder": lambda z: z}, "decoder is a function; give a torch module"),
        ({"encoder": nn.Linear}, "encoder is the class Linear; give a torch module"),
        ({"encoder_gives": "logvar"}, "encoder_gives='logvar' is unknown"),
        ({"likelihood": "normal"}, "likelihood='normal' is unknown"),
        ({"decoder_gives": "mean"}, "choose one of logits, probabilities"),
        ({"decoder_gives": None}, "decoder_gives is missing; of bernoulli it is 'logits' or"),
        ({"likelihood": dist.Poisson}, "decoder_gives is for a likelihood by name"),
        ({"likelihood": "gaussian", "decoder_gives": "mean"}, "scale is missing"),
        ({"scale": 1.0}, "scale is for a gaussian whose decoder gives the mean alone"),
        ({"latent_dim": None}, "latent_dim is missing"),
        ({"latent_dim": 0}, "latent_dim is 0; it must be at least 1"),
        ({"latent_dim": 3}, r"gives codes of shape \(2,\); latent_dim says \(3,\)"),
        ({"encoder": Fixed(S, -S)}, "'mean_scale' does not fit what the encoder gives: a scale is"),
        ({"encoder": nn.Linear(3, 3)}, r"one tensor of shape \(3, 3\), and two are needed"),
        ({"decoder": Fixed(M, M)}, "the decoder gives 2 tensors, and decoder_gives='logits' is of"),
        ({"decoder_gives": "probabilities"}, "the decoder gives: a probs is not finite or not"),
        ({"decoder": nn.Linear(2, 4)}, r"gives data of shape \(4,\), and x has shape \(3,\)"),
        (
            {"likelihood": lambda m: torch.distributions.Normal(m, 1.0), "decoder_gives": None},
            "likelihood gives a Normal; it has to be of pyro.distributions",
        ),
        ({"prior": torch.zeros(2)}, "prior gives a Tensor; it has to be of pyro.distributions"),
    ],
)
def test_mistakes_are_refused_in_a_line(changed, said):
    given = GIVEN | {"encoder": Fixed(S, S), "decoder": nn.Linear(2, 3), "latent_dim": 2} | changed
    with pytest.raises(UsageError, match=said):
        made = pyro_aevb.pair(given.pop("encoder"), given.pop("decoder"), **given)
        with torch.no_grad():
            if "probabilities" in given.values():
                made.decoder.bias.fill_(9)
        ready(made, torch.ones(3, 3))


def test_nets_of_plain_torch_as_on_the_page(tmp_path, monkeypatch):
    names = {}
    follow("Plain torch", names, tmp_path, monkeypatch)
    run, test = names["run"], names["x"][1500:][:FEW]
    with torch.no_grad():
        losses = torch.stack([names["loss"](test) for _ in range(400)]).mean(0)
        # log p(x) by plain importance sampling from the encoder
        mean, log_variance = names["encoder"](test).chunk(2, 1)
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        weights = []
        for _ in range(2000):
            z = q.sample()
            logits = names["decoder"](z)
            px = torch.distributions.Bernoulli(logits=logits).log_prob(test).sum(1)
            pz = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
            weights.append(px + pz - q.log_prob(z).sum(1))
        expected = torch.stack(weights).logsumexp(0) - math.log(len(weights))
    assert_unbiased(run.per_datum("sample_stats", "elbo")[0, 0] + losses.numpy())
    found = torch.from_numpy(run.per_datum("predictive", "log_likelihood"))
    assert abs(float((found - expected).mean())) < 0.02
    assert float((found - expected).abs().median()) < 0.1


def test_a_vae_of_pythae_has_its_own_loss_on_the_same_draws(tmp_path, monkeypatch):
    pytest.importorskip("pythae")
    data = torch.rand(90, 64).round()
    names = {"pyro_aevb": pyro_aevb, "from_arrays": small, "x": data}
    follow("pythae", names, tmp_path, monkeypatch)
    vae = names["vae"].eval()
    squares = pyro_aevb.pair(
        vae.encoder,
        vae.decoder,
        encoder_gives="mean_log_variance",
        likelihood="gaussian",
        decoder_gives="mean",
        scale=1.0,
        latent_dim=4,
    )
    constant = 64 / 2 * math.log(2 * math.pi)
    for name, pair, more in (("bce", names["pair"], 0.0), ("mse", squares, constant)):
        vae.model_config.reconstruction_loss = name
        pyro.set_rng_seed(3)
        with torch.no_grad():
            expected = float(vae({"data": data}).loss)
            pyro.set_rng_seed(3)
            found = TraceMeanField_ELBO().loss(pair.model, pair.guide, data) / len(data)
        assert found == pytest.approx(expected + more, rel=1e-5)


def test_a_module_of_scvi_tools_has_its_own_loss_in_expectation(tmp_path, monkeypatch):
    pytest.importorskip("scvi")
    names = {"pyro_aevb": pyro_aevb, "from_arrays": from_arrays}
    follow("scvi-tools", names, tmp_path, monkeypatch)
    vae, test = names["vae"].eval(), slice(200, 200 + FEW)
    tensors = {"X": names["x"][test], "batch": names["batch"][test], "labels": None}
    losses = []
    with torch.no_grad():
        for _ in range(300):
            _, _, loss = vae(tensors)
            terms = (*loss.reconstruction_loss.values(), *loss.kl_local.values())
            losses.append(sum(terms))
    elbo = names["run"].per_datum("sample_stats", "elbo")[0, 0]
    assert_unbiased(elbo + torch.stack(losses).mean(0).numpy())


def small(name, train, test):
    """A data set of the same few data, whatever the page has."""
    return from_arrays(name, train=train[:40], test=train[-FEW:])
