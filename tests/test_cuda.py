"""The same on a GPU; skipped, visibly, where there is none."""

import pytest
import torch

import pyro_aevb
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.sets import load
from pyro_aevb.estimators.importance import score
from pyro_aevb.preparation import prepare

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_scores_agree_with_the_cpu(network):
    """Other random numbers, the same integral: the difference is Monte Carlo error, about 0.1."""
    values = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        prepared = prepare("VAE", "digits", {"network": network}, device="cpu")
        pair = prepared.pair.move(device)
        data = Batches(load("digits").test, "fixed", device)
        values[device] = score(pair, data, num_samples=500)
    for name in ("log_weight", "elbo", "kl", "reconstruction_mean"):
        cpu, cuda = (getattr(values[d], name).mean() for d in ("cpu", "cuda"))
        assert cuda == pytest.approx(cpu, abs=0.1 if name in ("log_weight", "elbo") else 1e-3)


def test_fit_on_cuda_resumes(tmp_path):
    settings = {"data": "digits", "num_samples": 50, "device": "cuda", "show": False}
    run = pyro_aevb.fit(epochs=3, out=str(tmp_path / "r"), **settings)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 1
    again = pyro_aevb.fit(epochs=5, out=str(tmp_path / "r"), resume=True, **settings)
    assert len(again.history) == 5
