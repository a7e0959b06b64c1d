"""Corruption against its stated rates and moments, and training on it against clean targets."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from harness import assert_compiles, assert_resumes, capture_only, refusal, taken
from linear_gaussian import PPCA, batches, ready
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pyro_aevb
import pyro_aevb.runs.prepare
import pyro_aevb.training.step
from pyro_aevb.cli import run_command
from pyro_aevb.data import Batches, Split
from pyro_aevb.data.corruption import GaussianNoise, Masking, SaltAndPepper, make_corruption
from pyro_aevb.data.smallest import smallest
from pyro_aevb.errors import UsageError
from pyro_aevb.models import VAE, Autoencoder, DenoisingAutoencoder
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything


def binomial(count, n, p):
    r"""Whether a count is within 4.5 standard errors, which 1 in 100,000 is not."""
    return abs(count - n * p) < 4.5 * math.sqrt(n * p * (1 - p)) + 1e-9


# What they do to data


def test_a_missing_value_that_is_hit_is_overwritten():
    x = torch.tensor([[math.nan, 1.0]])
    assert torch.equal(Masking(1.0)(x), torch.zeros(1, 2))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.9, 1.0])
def test_each_component_is_masked_with_the_rate(rate):
    x = torch.rand(400, 1, 6, 7) + 0.5
    y = Masking(rate)(x)
    hit = (y == 0).numpy()
    assert torch.equal(y[~torch.from_numpy(hit)], x[~torch.from_numpy(hit)])
    assert binomial(hit.sum(), hit.size, rate)
    assert all(binomial(n, 400, rate) for n in hit.sum(0).flatten())
    # Independent: the counts of a datum are binomial, whose variance a fixed count lacks.
    counts = hit.reshape(400, -1).sum(1)
    variance = 42 * rate * (1 - rate)
    assert abs(counts.var() - variance) <= 4.5 * variance * math.sqrt(2 / 400)


@pytest.mark.parametrize("rate, count", [(0.0, 0), (0.1, 4), (0.25, 10), (0.4, 17), (1.0, 42)])
@pytest.mark.parametrize("kind", [Masking, SaltAndPepper])
def test_an_exact_fraction_of_each_datum_chosen_anew(kind, rate, count):
    x = torch.rand(400, 6, 7) / 2 + 0.25
    y = kind(rate, exact=True)(x)
    hit = (y != x).flatten(1).numpy()
    assert (hit.sum(1) == count).all()  # round(rate * 42)
    assert all(binomial(n, 400, count / 42) for n in hit.sum(0))
    assert len(np.unique(hit, axis=0)) > (0 if count in (0, 42) else 390)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_smallest_are_those_of_a_sort_and_as_many_where_numbers_are_equal(dtype):
    x = torch.rand(50, 40).to(dtype)
    x[:25] = (4 * x[:25]).round()  # five values
    for count in (0, 1, 13, 40):
        found = smallest(x, count)
        assert (found.sum(1) == count).all()
        ordered = x.sort(1).values
        if 0 < count < 40:
            assert (x[found].view(50, count).amax(1) == ordered[:, count - 1]).all()
            assert (x[~found].view(50, -1).amin(1) == ordered[:, count]).all()
    assert smallest(x[:0], 3).shape == (0, 40)


@pytest.mark.parametrize("exact", [False, True])
def test_salt_and_pepper_in_equal_parts(exact):
    x = torch.rand(300, 50) / 2 + 0.25
    y = SaltAndPepper(0.3, exact, low=-1.0, high=2.0)(x)
    low, high = int((y == -1).sum()), int((y == 2).sum())
    assert torch.equal(y[(y != -1) & (y != 2)], x[(y != -1) & (y != 2)])
    assert low + high == 15 * 300 if exact else binomial(low + high, 15000, 0.3)
    assert binomial(low, low + high, 0.5)
    both = ((y == -1).double().T @ (y == 2).double()).diagonal()
    assert float(both.sum()) == 0  # the coin is tossed for each component by itself
    agree = (y[:, :-1] == y[:, 1:])[((y[:, :-1] != x[:, :-1]) & (y[:, 1:] != x[:, 1:]))]
    assert binomial(int(agree.sum()), len(agree), 0.5)


def clipped_moments(mean, std):
    r"""Mean and variance of a normal clipped to [0, 1], from those of the truncated one."""
    a, b = (0 - mean) / std, (1 - mean) / std
    inside = scipy.stats.norm.cdf(b) - scipy.stats.norm.cdf(a)
    above = scipy.stats.norm.sf(b)
    m, v = scipy.stats.truncnorm.stats(a, b, loc=mean, scale=std)
    first, second = inside * m + above, inside * (v + m**2) + above
    return first, second - first**2


@pytest.mark.parametrize("std", [0.1, 0.7])
@pytest.mark.parametrize("pixel", [0.0, 0.15, 0.6, 1.0])
def test_gaussian_noise_has_the_moments_of_the_normal_plain_and_clipped(pixel, std):
    n = 40000
    x = torch.full((n // 40, 40), pixel, dtype=torch.float64)
    for clip, (mean, variance) in (
        (False, (pixel, std**2)),
        (True, clipped_moments(pixel, std)),
    ):
        y = GaussianNoise(std, clip)(x).flatten().numpy()
        assert y.min() >= 0 and y.max() <= 1 if clip else y.max() > pixel + 3 * std
        assert abs(y.mean() - mean) < 4.5 * math.sqrt(variance / n)
        squares = (y - mean) ** 2
        assert abs(squares.mean() - variance) < 4.5 * squares.std() / math.sqrt(n)
    assert not np.array_equal(y[:40], y[40:80])


def test_corruptions_by_name():
    mine = Masking(0.5)
    assert make_corruption("masking", {"rate": 0.1, "exact": True}) == Masking(0.1, True)
    assert make_corruption("salt_and_pepper") == SaltAndPepper()
    assert make_corruption("gaussian", {"std": 0.2}) == GaussianNoise(0.2)
    assert make_corruption(None) is None and make_corruption(None, None, mine) is mine
    assert make_corruption("none", None, mine) is None
    assert make_corruption(mine.__call__, None, None) == mine.__call__


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("maskin", {}, ["'maskin'", "did you mean 'masking'", "none"]),
        ("masking", {"ratio": 0.1}, ["'ratio'", "rate, exact"]),
        ("masking", {"rate": "much"}, ["rate is 'much'", "number"]),
        ("masking", {"rate": 1.5}, ["rate 1.5", "[0, 1]"]),
        ("gaussian", {"std": -0.1}, ["std -0.1", "0 or more"]),
        (None, {"rate": 0.1}, ["--corruption-options", "--corruption masking"]),
    ],
)
def test_wrong_corruptions_are_named_in_one_line(name, options, words):
    with pytest.raises(UsageError) as error:
        make_corruption(name, options)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


# Training


def step_of(pair, x, objective="elbo", particles=1, corruption=None):
    pair = ready(pair, x)
    algorithm = SVI(pair, make_objective(objective, particles), corruption=corruption)
    return Step(pair, algorithm.phases[0], batches(x))


@pytest.mark.parametrize("corruption", [Masking(0.4, True), SaltAndPepper(), GaussianNoise(0.3)])
def test_the_guide_sees_corrupted_data_and_the_targets_stay_clean(corruption):
    source = Autoencoder((1, 4, 5), latent_dim=3, hidden=[6])
    x = (torch.rand(12, 1, 4, 5) > 0.5).float()
    step = step_of(source, x, corruption=corruption)
    loss, gradients = taken(step, torch.arange(12), seed=4)

    torch.manual_seed(4)
    seen = corruption(x)
    assert not torch.equal(seen, x)
    (code,) = source.encoder(seen)
    logits = source.likelihood(source.decoder(code)).base_dist.logits
    expected = binary_cross_entropy_with_logits(logits, x, reduction="sum") / 12
    torch.testing.assert_close(loss, expected.detach())
    parameters = list(step.parameters.values())
    for name, value in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(gradients[name], value)


class Reflected(PPCA):
    def guide(self, x):
        super().guide(0.5 - x)


@pytest.mark.parametrize(
    "objective", ["elbo", "iwae", "dreg", "pyro.infer.Trace_ELBO", "pyro.infer.RenyiELBO"]
)
def test_corruption_is_drawn_once_in_a_step_whatever_the_objective(objective):
    def reflect(x):
        calls.append(len(x))
        return 0.5 - x

    calls, x = [], PPCA().data(6)
    found = taken(step_of(PPCA(), x, objective, 3, reflect), torch.arange(6))
    expected = taken(step_of(Reflected(), x, objective, 3), torch.arange(6))
    assert calls == [6]
    torch.testing.assert_close(found, expected)


class Linear(nn.Module):
    r"""x ~ N(W z, 1), z = V x, as wide as x: the best W V maps corrupted data to their mean."""

    corruption = GaussianNoise(0.8)

    def __init__(self, features=3):
        super().__init__()
        self.V = nn.Parameter(0.5 * torch.eye(features))
        self.W = nn.Parameter(0.5 * torch.eye(features))

    def model(self, x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(self.V)), 1.0).to_event(1).mask(False)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ self.W.T, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ self.V.T).to_event(1))


def test_a_linear_denoising_autoencoder_learns_the_wiener_filter():
    r"""With E[x x'] = S and noise of variance v, the best map is S (S + v I)^-1."""
    mixing = np.array([[1.5, 0.0, 0.0], [0.8, 0.7, 0.0], [0.3, -0.5, 0.2]])
    x = torch.from_numpy(np.random.RandomState(0).normal(size=(2000, 3)) @ mixing.T).float()
    S = (x.T @ x / len(x)).double().numpy()
    expected = S @ np.linalg.inv(S + 0.8**2 * np.eye(3))
    pair = ready(Linear(), x)
    settings = {"epochs": 150, "batch_size": 500, "lr": 0.03, "schedule": "cosine"}
    algorithm = make_algorithm(None, pair, batches(x))
    history = Trainer(pair, batches(x), batches(x), algorithm, **settings).run()
    W, V = pair.trainable()["pair.W"], pair.trainable()["pair.V"]
    found = (W @ V).detach().double().numpy()
    # The noise of the last steps; without corruption the best map is I, with it in the target, 0.
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(expected - np.eye(3)).max() > 0.5
    # The validation is of clean input.
    residual = x.double().numpy() @ (np.eye(3) - found).T
    clean = -0.5 * (residual**2).sum(1).mean() - 1.5 * math.log(2 * math.pi)
    assert history[-1]["reconstruction"] == pytest.approx(clean, abs=1e-5)
    noise = 0.8**2 * (found**2).sum() / 2
    assert history[-1]["objective"] == pytest.approx(clean - noise, abs=0.05)


def images(binarize="dynamic"):
    pixels = torch.from_numpy(np.random.RandomState(1).rand(60, 1, 6, 6).astype(np.float32))
    return Batches(Split(pixels, None, 1), binarize)


def denoising():
    pair = DenoisingAutoencoder((1, 6, 6), latent_dim=3, hidden=[8])
    return ready(pair, images().images)


def trainer(path=None, **corruption):
    seed_everything(5)
    pair, data = denoising(), images()
    algorithm = make_algorithm(None, pair, data, **corruption)
    settings = {"epochs": 4, "batch_size": 25, "compile": "off"}
    return Trainer(pair, data, images("fixed"), algorithm, path, **settings)


def test_a_flag_has_the_last_word_over_the_pairs_own_corruption():
    def found(pair, **settings):
        return make_algorithm(None, pair, images(), **settings).corruption

    assert found(denoising()) == Masking(0.25)
    assert found(denoising(), corruption="none") is None
    options = {"std": 0.3}
    assert found(denoising(), corruption="gaussian", corruption_options=options).std == 0.3
    other = ready(VAE((1, 6, 6)), images().images)
    assert found(other) is None
    other.attribute = {"corruption": "a string is none of ours"}.get
    assert found(other) is None


def test_wake_sleep_has_no_corruption():
    pair = ready(VAE((1, 6, 6)), images().images)
    with pytest.raises(UsageError, match="--corruption Masking.* is for --algorithm svi"):
        make_algorithm("wake_sleep", pair, images(), corruption="masking")


@pytest.mark.parametrize("corruption", ["masking", "gaussian"])
def test_a_resumed_run_equals_an_uninterrupted_one(corruption, tmp_path):
    assert_resumes(partial(trainer, corruption=corruption), tmp_path / "c.pt", 7)  # of 12


@pytest.mark.parametrize(
    "corruption, compiled",
    [
        (Masking(0.3), False),
        (GaussianNoise(0.3, clip=True), False),
        (SaltAndPepper(0.3, True), True),
    ],
)
def test_a_captured_or_compiled_step_corrupts_as_an_eager_one(corruption, compiled, monkeypatch):
    if not compiled:
        capture_only(monkeypatch)
    pair = denoising()
    step = Step(pair, SVI(pair, TraceELBO(), corruption=corruption).phases[0], images())
    index, other = torch.randperm(60)[:24], torch.randperm(60)[:24]
    assert_compiles(step, (index,), (index,), (other,))


def test_the_command_trains_on_corrupted_and_scores_clean_data(tmp_path, capsys):
    words = ["--data=digits", "--epochs=1", "--num-data=20", "--show=false", "--pair.hidden=[8]"]
    out = tmp_path / "run"
    run_command(pyro_aevb.fit, [*words, "--pair=DenoisingAutoencoder", f"--out={out}"])
    run = pyro_aevb.Run.open(out)
    assert (run.figures / "denoising.png").is_file()
    assert any("on Masking(rate=0.25, exact=False) of" in note for note in run.results["notes"])
    pair, test = pyro_aevb.runs.prepare.restore(run).pair, pyro_aevb.runs.prepare.restore(run).test
    x, source = test.take(torch.arange(20)), pair.attribute("encoder")
    with torch.no_grad():
        px = pair.attribute("likelihood")(pair.attribute("decoder")(source(x)[0]))
        expected = px.log_prob(x).mean().item()
    assert run.results["metrics"]["reconstruction"]["value"] == pytest.approx(expected, rel=1e-5)
    assert run.results["metrics"]["elbo"]["value"] is None

    plain = [*words, "--pair=Autoencoder", f"--out={tmp_path / 'plain'}"]
    run_command(pyro_aevb.fit, [*plain, "--corruption=gaussian", "--corruption-options={std: 0.3}"])
    settings = pyro_aevb.Run.open(tmp_path / "plain").settings
    assert (settings["corruption"], settings["corruption_options"]) == ("gaussian", {"std": 0.3})
    for flag, hint in (
        ("--corruption=salt", "no corruption 'salt'; use masking, salt_and_pepper"),
        ("--corruption-options={std:0.3}", "with a blank after each colon"),
    ):
        wrong = [*words, flag, f"--out={tmp_path / 'wrong'}"]
        assert hint in refusal(partial(run_command, pyro_aevb.fit, wrong), capsys)

    def mine(x):
        return x.flip(-1)

    settings = {"epochs": 1, "num_data": 20, "show": False, "out": str(tmp_path / "mine")}
    run = pyro_aevb.fit("Autoencoder", "digits", {"hidden": [8]}, corruption=mine, **settings)
    assert run.settings["corruption"] == "<function>"
    assert not (run.figures / "denoising.png").exists()
