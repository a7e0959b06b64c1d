"""Families given labels, against quadrature over the code and nets written out in NumPy."""

import numpy as np
import pyro
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import norm

import pyro_aevb
from pyro_aevb.data import Batches, Split
from pyro_aevb.data.batch import Batch
from pyro_aevb.estimators.importance import score
from pyro_aevb.models import (
    VAE,
    ConditionalAdversarialAutoencoder,
    ConditionalBayesianVAE,
    ConditionalVAE,
)
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import decode, encode, reconstruct

SHAPE, CLASSES, N = (1, 4, 3), 3, 30


def labelled(n=N):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 2, (n, *SHAPE), generator=generator).float()
    return x, torch.arange(n) % CLASSES


def ready(source):
    x, label = labelled()
    pair = load_pair(source)
    inspect(pair, Batch(x[:5], {"label": label[:5]}))
    return pair, Batches(Split(x, label, 1), "none", columns=["label"])


def arrays(layer):
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()


def log_likelihood(source, x, label):
    """log p(x|label) by quadrature over a grid of two-dimensional codes, the nets in NumPy."""
    (w, b), (v, c) = arrays(source.decoder.body[0]), arrays(source.likelihood.heads.layer)
    axis, step = np.linspace(-8, 8, 161, retstep=True)
    z = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    prior = norm.logpdf(z).sum(1) + 2 * np.log(step)
    found = []
    for one, k in zip(x.flatten(1).numpy(), label.tolist(), strict=True):
        told = np.concatenate([z, np.tile(np.eye(CLASSES)[k], (len(z), 1))], 1)
        y = expit(np.tanh(told @ w.T + b) @ v.T + c)
        found.append(logsumexp(prior + (one * np.log(y) + (1 - one) * np.log1p(-y)).sum(1)))
    return np.array(found)


def test_the_log_likelihood_is_that_given_the_label():
    torch.manual_seed(0)
    source = ConditionalVAE(SHAPE, CLASSES, latent_dim=2, hidden=[6])
    with torch.no_grad():
        for value in (*source.decoder.parameters(), *source.likelihood.parameters()):
            value.mul_(3.0)
    pair, batches = ready(source)
    x, label = labelled()
    exact = log_likelihood(source, x, label)
    estimate = score(pair, batches, 20_000, compile="off").log_weight[0]
    # The largest error of 30 estimates by 20,000 draws; another label moves them by nats.
    assert np.abs(estimate - exact).max() < 0.05
    wrong = log_likelihood(source, x, (label + 1) % CLASSES)
    assert np.abs(wrong - exact).mean() > 0.5


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("family", [ConditionalVAE, ConditionalAdversarialAutoencoder])
def test_what_nets_see_is_data_and_label_side_by_side(family, network):
    torch.manual_seed(0)
    hidden = [6] if network == "mlp" else [3, 4]
    source = family(SHAPE, CLASSES, latent_dim=2, hidden=hidden, network=network)
    pair, _ = ready(source)
    x, label = labelled(6)
    one_hot = torch.eye(CLASSES)[label]
    if network == "mlp":
        seen = torch.cat([x.flatten(1), one_hot], 1)
    else:
        seen = torch.cat([x, one_hot[:, :, None, None].expand(-1, -1, 4, 3)], 1)
    codes = encode(pair, x, label=label)["z"]
    torch.testing.assert_close(codes, source.encoder(seen)[0])
    told = torch.cat([codes, one_hot], 1)
    expected = source.likelihood(source.decoder(told)).mean
    torch.testing.assert_close(decode(pair, {"z": codes}, x, label=label), expected)
    others = decode(pair, {"z": codes}, x, label=(label + 1) % CLASSES)
    assert (others - expected).abs().max() > 0.01


def test_a_hybrid_with_weights_at_their_means_is_the_vae_given_the_label():
    torch.manual_seed(0)
    source = ConditionalBayesianVAE(SHAPE, N, CLASSES, latent_dim=2, hidden=[6], init_scale=1e-4)
    pair, batches = ready(source)
    found = score(pair, batches, 300, weight_samples=1, compile="off").elbo.mean()
    plain = ConditionalVAE(SHAPE, CLASSES, latent_dim=2, hidden=[6])
    plain.load_state_dict(source.nets.state_dict())
    pyro.clear_param_store()
    points, _ = ready(plain)
    assert found == pytest.approx(score(points, batches, 300, compile="off").elbo.mean(), abs=0.02)


def test_codes_say_less_of_the_label_when_the_nets_are_told(tmp_path):
    how = {"epochs": 30, "lr": 1e-2, "num_samples": 20, "no_score": True, "show": False, "seed": 0}
    parameters = {"latent_dim": 2, "hidden": [64]}
    right = {}
    for name in ("VAE", "ConditionalVAE", "ConditionalBayesianVAE"):
        out = str(tmp_path / name)
        run = pyro_aevb.fit(name, "digits", parameters, out=out, compile="off", **how)
        codes, labels = np.split(np.asarray(run.codes("train")), [2], 1)
        labels = labels[:, 0]
        # The nearest centre of a class, of one half of the data, for the other half.
        centres = np.stack([codes[::2][labels[::2] == k].mean(0) for k in range(10)])
        nearest = np.square(codes[1::2, None] - centres).sum(-1).argmin(1)
        right[name] = (nearest == labels[1::2]).mean()
    assert right["VAE"] > 0.5
    assert right["ConditionalVAE"] < 0.3 and right["ConditionalBayesianVAE"] < 0.3


def test_without_labels_a_line_says_so(tmp_path):
    with pytest.raises(pyro_aevb.UsageError, match="ConditionalVAE needs data with labels"):
        pyro_aevb.fit("ConditionalVAE", np.random.default_rng(0).random((30, 6)), show=False)
    assert VAE((6,)).encoder_shape == (6,)


def test_a_run_shows_one_style_in_every_class(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "pyro_aevb.reports.plots.walks",
        lambda images, path, names, title: drawn.setdefault(path.name, (images, names, title)),
    )
    parameters = {"latent_dim": 2, "hidden": [8]}
    how = {"epochs": 1, "num_samples": 2, "num_data": 40, "proposal": "guide", "show": False}
    out = str(tmp_path / "run")
    run = pyro_aevb.fit("ConditionalVAE", "digits", parameters, out=out, compile="off", **how)
    images, names, title = drawn["styles.png"]
    assert images.shape == (10, 10, 1, 8, 8) and title == "a datum's code with each label"
    # Ten data, one of each class: those of its own class are its reconstruction.
    held = run.restore().prepared
    for k in (0, 7):
        first = int((held.data.test.labels == k).nonzero()[0, 0])
        x = held.test.take(torch.tensor([first]))
        np.testing.assert_allclose(images[k, k], reconstruct(held.pair, x)[0], atol=1e-6)
        other = decode(held.pair, encode(held.pair, x), x, label=torch.tensor([3]))
        np.testing.assert_allclose(images[k, 3], other[0], atol=1e-6)


@pytest.mark.parametrize("family", ["ConditionalVAE", "ConditionalBayesianVAE"])
def test_labels_that_are_not_known_are_refused(family, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 6)), np.arange(60) % 3
    np.savez(tmp_path / "few.npz", x=x, y=np.where(np.arange(60) < 20, -1, y))
    with pytest.raises(pyro_aevb.UsageError, match="told labels from 0 to 2, and those of the tr"):
        pyro_aevb.fit(family, str(tmp_path / "few.npz"), {"hidden": [4]}, show=False)
    np.savez(tmp_path / "all.npz", x=x, y=y)
    np.savez(tmp_path / "more.npz", x=x, y=np.arange(60) % 5)
    how = {"epochs": 1, "num_samples": 2, "proposal": "guide", "show": False, "compile": "off"}
    out = str(tmp_path / "run")
    run = pyro_aevb.fit(family, str(tmp_path / "all.npz"), {"hidden": [4]}, out=out, **how)
    with pytest.raises(pyro_aevb.UsageError, match="told labels from 0 to 2, and those of .*more"):
        pyro_aevb.evaluate(run, against=str(tmp_path / "more.npz"), show=False)
