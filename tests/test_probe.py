"""What a classifier reads from codes, against scikit-learn and codes whose answer is known."""

import numpy as np
import pytest
from sklearn.svm import SVC

import pyro_aevb
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.probe import label_accuracy


def rings(n, seed):
    """Two classes on circles of radius 1 and 3: a line tells nothing of them."""
    rng = np.random.default_rng(seed)
    labels, angle = np.arange(n) % 2, rng.uniform(0, 2 * np.pi, n)
    radius = 1 + 2 * labels + 0.1 * rng.normal(size=n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), labels


def test_rings_are_read_by_kernels_and_not_by_lines():
    (x, y), (t, u) = rings(400, 0), rings(1000, 1)
    found = label_accuracy(x, y, 100 * t, u)  # the test codes are scaled as the others are
    assert found["value"] < 60
    found = label_accuracy(100 * x, y, 100 * t, u)
    assert found["value"] == 100 and found["chance"] == 50 and found["standard_error"] == 0
    assert abs(label_accuracy(x, y, t, u, "softmax")["value"] - 50) < 8
    # Shuffled labels: chance, within four binomial standard errors.
    shuffled = np.random.default_rng(2).permutation(u)
    found = label_accuracy(x, y, t, shuffled)
    assert found["standard_error"] == pytest.approx(50 / np.sqrt(1000), rel=0.01)
    assert abs(found["value"] - 50) < 4 * found["standard_error"]


def test_unknown_labels_are_left_out_and_one_class_is_refused():
    (x, y), (t, u) = rings(60, 0), rings(50, 1)
    hidden = np.where(np.arange(60) < 20, -1, y)
    found = label_accuracy(x, hidden, t, np.where(np.arange(50) < 10, -1, u))
    assert (found["num_train"], found["num_data"]) == (40, 40)
    for labels in (np.zeros(60, int), np.full(60, -1)):
        with pytest.raises(UsageError, match="two classes or more"):
            label_accuracy(x, labels, t, u)
    with pytest.raises(UsageError, match="classifier"):
        label_accuracy(x, y, t, u, "forest")


def test_of_a_run_it_is_scikit_learns_on_its_mean_codes(tmp_path):
    how = {"epochs": 3, "num_samples": 2, "num_data": 60, "proposal": "guide", "show": False}
    parameters = {"latent_dim": 3, "hidden": [16]}
    out = str(tmp_path / "run")
    run = pyro_aevb.fit("VAE", "digits", parameters, out=out, compile="off", **how)
    found = pyro_aevb.evaluate(run, "probe", {"num_train": 500}, show=False)["metrics"]
    few = np.sort(np.random.default_rng(0).permutation(1297)[:500])
    train, test = (np.split(np.asarray(run.codes(split)), [3], 1) for split in ("train", "test"))
    mean, scale = train[0][few].mean(0), train[0][few].std(0)
    model = SVC().fit((train[0][few] - mean) / scale, train[1][few, 0])
    right = model.predict((test[0] - mean) / scale) == test[1][:, 0]
    assert found["label_accuracy"]["value"] == pytest.approx(100 * right.mean(), abs=0.5)
    assert 30 < 100 * right.mean() < 100 and found["label_accuracy"]["num_train"] == 500
    blank = np.random.default_rng(0).random((60, 4))
    bare = pyro_aevb.fit(
        "VAE", blank, parameters, out=str(tmp_path / "bare"), **{**how, "num_data": 6}
    )
    with pytest.raises(UsageError, match="reads labels, and arrays has none"):
        pyro_aevb.evaluate(bare, "probe", show=False)
