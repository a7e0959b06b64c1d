"""Layer-wise training against a loop of plain PyTorch, PCA, and the generative view of the loss."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_resumes, stopped
from pyro.infer import Trace_ELBO
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear

import pyro_aevb
from pyro_aevb import RBM, DeepBeliefNet, DenoisingLayer, StackedDenoisingAutoencoder
from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.coded import Coded
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.classification import Predictions, predict
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.contrastive_divergence import cd_loss
from pyro_aevb.training.greedy import Greedy
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D, C, B = 50, 10, 3, 12  # four batches of an epoch, and one of 2
HIDDEN = (6, 4)
FIRST, EPOCHS, RATE, LR = 2, 7, 0.5, 0.3

KINDS = {
    "masking": {"corruption_options": {"rate": 0.3}},
    "emphasis": {
        "corruption": "salt_and_pepper",
        "corruption_options": {
            "rate": 0.4,
            "exact": True,
            "corrupted_weight": 2,
            "intact_weight": 0.5,
        },
    },
    "free": {"tied": False, "corruption_options": {"rate": 0.3, "exact": False}},
    "none": {"corruption": "none", "activation": "tanh"},
    "gaussian": {"corruption": "gaussian", "loss": "squared_error", "activation": "relu"},
}


def split(n=N, seed=0):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, C, n))
    bits = torch.from_numpy(rng.random((n, D)) < 0.2 + 0.6 * np.eye(C, D)[labels])
    return Split(bits.to(torch.uint8), labels, 1)


def batches(seed=0, columns=("label",), n=N):
    return Batches(split(n, seed), "none", columns=columns)


def trainer(path=None, kind="masking", num_labels=None, data=None, **settings):
    seed_everything(1)
    data = data or batches()
    net = StackedDenoisingAutoencoder((D,), C, HIDDEN, **KINDS[kind])
    pair = load_pair(net)
    inspect(pair, data.take(torch.arange(5)))
    learning = Greedy(pair, data, FIRST, RATE, num_labels)
    how = {"epochs": EPOCHS, "batch_size": B, "optimizer": "sgd", "lr": LR, "seed": 1, **settings}
    made = Trainer(pair, data, batches(2), learning, path, **how)
    made.try_objective()
    return made


def hit(x, kind):
    """Corrupted data and the weights of their components, from the draws that the package makes."""
    if kind == "gaussian":
        return x + 0.1 * torch.randn_like(x), 1.0
    if kind == "none":
        return x, 1.0
    salt = torch.rand_like(x) < 0.5 if kind == "emphasis" else None
    uniform = torch.rand_like(x)
    if kind == "free":
        return torch.where(uniform < 0.3, torch.zeros_like(x), x), 1.0
    count = round((0.4 if kind == "emphasis" else 0.3) * x.shape[1])
    chosen = uniform <= uniform.sort(1).values[:, count - 1 : count]
    assert (chosen.sum(1) == count).all()
    if kind == "emphasis":
        return torch.where(chosen, salt.float(), x), torch.where(chosen, 2.0, 0.5)
    return torch.where(chosen, torch.zeros_like(x), x), 1.0


def by_hand(made, kind):
    """The whole training as loops of plain PyTorch: the parameters that it ends with, by name."""
    p = {k.removeprefix("pair."): v.detach().clone() for k, v in made.pair.tensors().items()}
    torch.set_rng_state(made.random)
    s = {"none": torch.tanh, "gaussian": torch.relu}.get(kind, torch.sigmoid)
    x, label = made.train.images.float(), made.train.columns["label"]

    def hidden(k, h):
        return s(linear(h, p[f"layers.{k}.encoder.weight"], p[f"layers.{k}.encoder.bias"]))

    def descend(names, lr, h, loss, epochs):
        for name in names:
            p[name].requires_grad_()
        for epoch in epochs:
            for index in order(len(h), 1, epoch).split(B):
                gradients = torch.autograd.grad(loss(index), [p[name] for name in names])
                with torch.no_grad():
                    for name, gradient in zip(names, gradients, strict=True):
                        p[name] -= lr * gradient
        for name in names:
            p[name].requires_grad_(False)

    h = x
    for k in range(2):

        def loss(index, h=h, k=k):
            clean = h[index]
            seen, weight = hit(clean, kind)
            w = p[f"layers.{k}.weight"] if kind == "free" else p[f"layers.{k}.encoder.weight"].T
            logits = hidden(k, seen) @ w.T + p[f"layers.{k}.bias"]
            if kind == "gaussian" or (kind == "none" and k == 1):
                terms = 0.5 * (logits - clean) ** 2
            else:
                terms = binary_cross_entropy_with_logits(logits, clean, reduction="none")
            return (terms * weight).sum() / len(index)

        names = [name for name in p if name.startswith(f"layers.{k}.")]
        descend(names, RATE * LR, h, loss, range(k * FIRST, (k + 1) * FIRST))
        h = hidden(k, h)

    def tuned(index):
        top = hidden(1, hidden(0, x[index]))
        return cross_entropy(linear(top, p["output.weight"], p["output.bias"]), label[index])

    names = [name for name in p if "encoder" in name or "output" in name]
    descend(names, LR, x, tuned, range(2 * FIRST, EPOCHS))
    return p


@pytest.mark.parametrize("kind, compile", [*((kind, "off") for kind in KINDS), ("emphasis", "on")])
def test_a_greedy_training_is_loops_of_plain_pytorch(kind, compile):
    made = trainer(kind=kind, compile=compile)
    made.random = torch.get_rng_state()
    expected = by_hand(made, kind)
    torch.set_rng_state(made.random)
    rows = made.run()
    found = {k.removeprefix("pair."): v for k, v in made.pair.tensors().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=2e-5, atol=2e-6, msg=name)
    # The decoders' part stays as the layer's own stage left it, so that it still reconstructs.
    assert all(
        row["accuracy" if i >= 2 * FIRST else "reconstruction"] for i, row in enumerate(rows)
    )
    valid = made.valid.take(torch.arange(len(made.valid)))
    with torch.no_grad():
        logits = made.pair.sources["pair"].logits(valid.x)
    right = accuracy_score(valid.columns["label"], logits.argmax(1))
    assert rows[-1]["accuracy"] == pytest.approx(right, abs=1e-12)


def test_the_layers_of_a_deep_belief_net_are_machines_trained_one_by_one():
    """Each as it would be alone, on the codes of the trained one below, and left until the end."""
    seed_everything(1)
    data = batches()
    net = DeepBeliefNet((D,), C, HIDDEN, data_mean=torch.full((D,), 0.3))
    pair = load_pair(net)
    inspect(pair, data.take(torch.arange(5)))
    how = {"epochs": EPOCHS, "batch_size": B, "optimizer": "sgd", "lr": LR, "seed": 1}
    learning = Greedy(pair, data, FIRST, RATE, layer_options={"k": 3})
    made = Trainer(pair, data, batches(2), learning, stop_after=2 * FIRST, **how)
    before = {k: v.detach().clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    rows = made.run()
    assert all("pseudo_likelihood" in row for row in rows)
    machines = [RBM(layer.event_shape, H) for layer, H in zip(net.layers, HIDDEN, strict=True)]
    torch.set_rng_state(random)
    x = data.images.float()
    for number, (layer, alone) in enumerate(zip(net.layers, machines, strict=True)):
        alone.load_state_dict(
            {k: before[f"layers.{number}.{k}"] for k in alone.state_dict()}, strict=True
        )
        optimizer = torch.optim.SGD(alone.parameters(), RATE * LR)
        for epoch in range(number * FIRST, (number + 1) * FIRST):
            for index in order(N, 1, epoch).split(B):
                optimizer.zero_grad()
                cd_loss(alone, x[index], 3).backward()
                optimizer.step()
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(layer.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        x = alone.code(x).detach()


@pytest.mark.parametrize("step", [3, 14, 26])  # in the first, second and last stage
def test_a_resumed_run_equals_one_that_was_not_interrupted_in_every_stage(step, tmp_path):
    whole = trainer()
    whole.run()
    stopped(trainer(tmp_path / "checkpoint.pt"), "killed", step)
    again = trainer(tmp_path / "checkpoint.pt")
    again.resume()
    again.run()
    for name, value in whole.pair.tensors().items():
        assert torch.equal(again.pair.tensors()[name], value), name
    assert [r["objective"] for r in again.history] == [r["objective"] for r in whole.history]


@pytest.mark.parametrize("step", [4, 11])  # in the first and in the second machine's stage
def test_chains_of_machines_go_on_where_a_run_is_resumed(step, tmp_path):
    def fresh(path):
        seed_everything(1)
        data = batches()
        pair = load_pair(DeepBeliefNet((D,), C, HIDDEN))
        inspect(pair, data.take(torch.arange(5)))
        learning = Greedy(pair, data, FIRST, RATE, None, {"persistent": True, "chains": 7})
        how = {"epochs": EPOCHS, "batch_size": B, "optimizer": "sgd", "lr": 0.05, "seed": 1}
        return Trainer(pair, data, batches(2), learning, path, **how)

    whole = assert_resumes(fresh, tmp_path / "checkpoint.pt", step)
    assert {"layer1.chains", "layer2.chains"} <= whole._algorithm.state.keys()


def test_labels_beyond_the_first_are_not_looked_at():
    """Other labels of the rest change nothing, and the rest changes the layers alone."""

    def tensors(change):
        data = batches()
        change(data)
        made = trainer(data=data, num_labels=20)
        made.run()
        return {k: v.detach().clone() for k, v in made.pair.tensors().items()}

    def relabel(data):
        data.columns["label"][20:] = 0

    def other(data):
        data.images[20:] = 1 - data.images[20:]

    before, relabelled, others = tensors(lambda data: None), tensors(relabel), tensors(other)
    assert all(torch.equal(before[name], relabelled[name]) for name in before)
    assert all(not torch.equal(before[n], others[n]) for n in before if "layers" in n)


def test_patience_returns_to_the_best_epoch_of_each_stage():
    """Of epochs with the same accuracy the best is that of the highest log p(label|x)."""
    made = trainer(epochs=60, patience=3, lr=0.01)
    rows = [row for row in made.run() if "accuracy" in row]
    accuracy = [row["accuracy"] for row in rows]
    best = max(range(len(rows)), key=lambda i: (accuracy[i], rows[i]["elbo"]))
    assert best > np.argmax(accuracy)  # so there were equal ones
    assert len(rows) == best + 1 + 3
    found = predict(made.pair, made.valid)
    assert 1 - found.wrong().mean() == pytest.approx(max(accuracy), abs=1e-12)
    right = found.log_prob[np.arange(len(found.label)), found.label]
    assert right.mean() == pytest.approx(rows[best]["elbo"], rel=1e-5)


def test_linear_layers_without_noise_find_the_principal_components():
    """What is left of the variance is what PCA leaves, of the data and of the first codes."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, D)) * np.linspace(2, 0.5, D) + rng.normal(size=D)
    x = torch.from_numpy(x @ np.linalg.qr(rng.normal(size=(D, D)))[0]).float()
    data = Batches(Split(x, torch.arange(200) % C, 1), "none", columns=["label"])
    seed_everything(0)
    net = StackedDenoisingAutoencoder(
        (D,), C, HIDDEN, loss="squared_error", activation="tanh", corruption="none"
    )
    for layer in net.layers:
        layer.activation = nn.Identity()
    pair = load_pair(net)
    inspect(pair, data.take(torch.arange(5)))
    how = {"epochs": 801, "stop_after": 800, "batch_size": 200, "lr": 0.02}
    made = Trainer(pair, data, data, Greedy(pair, data, 400), **how)
    made.run()
    given = x
    for number, k in enumerate(HIDDEN, 1):
        variances = PCA().fit(given.numpy()).explained_variance_ * (len(x) - 1) / len(x)
        left = 0.5 * variances[k:].sum() + 0.5 * given.shape[1] * math.log(2 * math.pi)
        assert -made.history[400 * number - 1]["reconstruction"] == pytest.approx(left, abs=2e-3)
        with torch.no_grad():
            given = net.codes(x, number)


@pytest.mark.parametrize("loss, constant", [("cross_entropy", 0), ("squared_error", D / 2)])
def test_a_layer_is_trained_on_the_elbo_of_the_generative_view(loss, constant):
    """With a uniform prior of the codes, of density 1, Pyro's ELBO is the loss of the layer."""
    layer = DenoisingLayer((D,), 5, loss=loss, corruption="none")
    x = torch.rand(7, D)
    corrupted = x * (torch.rand(7, D) < 0.7)

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Uniform(torch.zeros(5), 1.0).to_event(1))
            pyro.sample("x", layer.decode(y), obs=x)

    elbo = -Trace_ELBO().loss(model, lambda x: layer.guide(corrupted), x) / len(x)
    with torch.no_grad():
        h = linear(layer.code(corrupted), layer.encoder.weight.T, layer.bias)
        terms = binary_cross_entropy_with_logits(h, x, reduction="none")
        if loss == "squared_error":
            terms = 0.5 * (x - h) ** 2
    expected = float(terms.sum(1).mean()) + constant * math.log(2 * math.pi)
    assert -elbo == pytest.approx(expected, rel=1e-5)


def test_codes_are_the_same_kept_and_computed():
    data = batches(n=30)
    layer = DenoisingLayer((D,), 4)
    coded = Coded(data, layer.code)
    index = torch.tensor([5, 0, 29])
    before, few = coded.take(index), coded.first(10).take(torch.arange(10))
    coded.keep()
    assert len(coded) == 30 and coded.event_shape == (4,)
    torch.testing.assert_close(coded.take(index), before)
    torch.testing.assert_close(coded.first(10).take(torch.arange(10)), few)
    torch.testing.assert_close(before, layer.code(data.images[index].float()).detach())


def test_error_and_calibration_of_a_classifier():
    """Against scikit-learn, and a calibration error by hand: two bins of 0.75 and 0.95."""
    probability = np.array([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 4)
    label = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    found = Predictions(np.log(probability), label).metrics()
    assert found["classification_error"]["value"] == pytest.approx(25)
    assert found["classification_error"]["standard_error"] == pytest.approx(
        100 * math.sqrt(0.25 * 0.75 / 8)
    )
    assert found["calibration_error"]["value"] == pytest.approx(100 * (0.25 + 0.05) / 2)


def test_predictions_average_the_probabilities_over_draws_of_the_weights():
    class Bayesian(nn.Module):
        def model(self, x, label):
            w = pyro.sample("w", dist.Normal(torch.zeros(D, C), 1.0).to_event(2))
            with pyro.plate("data", N, subsample_size=len(x)):
                pyro.sample("label", dist.Categorical(logits=x @ w), obs=label)

        def guide(self, x, label):
            loc = pyro.param("loc", torch.ones(D, C))
            pyro.sample("w", dist.Normal(loc, 2.0).to_event(2))

    pair, data = load_pair(Bayesian()), batches()
    inspect(pair, data.take(torch.arange(5)))
    found = predict(pair, data, 400, seed=3)
    generator = torch.Generator().manual_seed(5)
    w = 1 + 2 * torch.randn(20_000, D, C, generator=generator)
    exact = (data.images.float() @ w).softmax(-1).mean(0)
    # 400 draws of probabilities, whose standard deviation is below one half
    assert np.abs(np.exp(found.log_prob) - exact.numpy()).max() < 4 * 0.5 / math.sqrt(400)
    assert np.exp(found.log_prob).sum(1) == pytest.approx(1, abs=1e-6)
    x = data.images.float()
    torch.manual_seed(3)
    public = pyro_aevb.predict(pair, x, 400)  # without labels
    assert public.shape == (N, C) and (public - exact).abs().max() < 4 * 0.5 / math.sqrt(400)
    other = predict(pair, data, 1, seed=3)
    assert np.abs(np.exp(other.log_prob) - exact.numpy()).max() > 0.3


def test_the_command_reports_error_likelihood_and_calibration(tmp_path, capsys):
    parts = [split(60, seed) for seed in range(3)]
    data = DataSet("bits", *parts, "bits with labels", "none")
    run = pyro_aevb.fit(
        "StackedDenoisingAutoencoder",
        data,
        {"hidden": [6, 4]},
        epochs=12,
        batch_size=20,
        lr=0.5,
        optimizer="sgd",
        algorithm_options={"pretraining_epochs": 3, "num_labels": 40},
        out=str(tmp_path / "run"),
    )
    said = capsys.readouterr().out
    x, label = parts[2].images.float(), parts[2].labels
    with torch.no_grad():
        probability = run.pair.sources["pair"].logits(x).double().softmax(1)
    metrics = json.loads((run.path / "results.json").read_text())["metrics"]
    error = 100 * (1 - accuracy_score(label, probability.argmax(1)))
    assert metrics["classification_error"]["value"] == pytest.approx(error, abs=1e-9)
    loss = log_loss(label, probability.numpy())
    assert metrics["log_likelihood"]["value"] == pytest.approx(-loss, abs=1e-5)
    assert f"classification error {error:.2f} ±" in said and "log p(label | x) = " in said
    np.testing.assert_array_equal(run.per_datum("classification", "label"), label)
    np.testing.assert_allclose(
        np.exp(run.per_datum("classification", "log_prob")), probability, atol=1e-6
    )
    assert "fine-tuned on 40 of 60" in said


def test_with_patience_the_results_name_the_epoch_that_is_scored(tmp_path, capsys):
    data = DataSet("bits", *[split(60, seed) for seed in range(3)], "bits", "none")
    run = pyro_aevb.fit(
        "StackedDenoisingAutoencoder",
        data,
        {"hidden": [4, 3]},
        epochs=90,
        patience=4,
        lr=0.05,
        algorithm_options={"pretraining_epochs": 2},
        out=str(tmp_path / "run"),
    )
    said, rows = capsys.readouterr().out, run.history
    assert [row["stage"] for row in rows] == [1, 1, 2, 2] + [3] * (len(rows) - 4)
    accuracy = [-1 if row["accuracy"] is None else row["accuracy"] for row in rows]
    best, results = 1 + int(np.argmax(accuracy)), run.results
    assert (results["best_epoch"], results["epochs"]) == (best, len(rows)) == (best, best + 4)
    assert f"after {best} of {len(rows)} epochs" in " ".join(said.split())
    again = pyro_aevb.evaluate(run, data=data, show=False)
    assert again["best_epoch"] == best and again["metrics"] == results["metrics"]
    # A classifier has no codes, and nobody expects pictures of it.
    assert results["codes"] == "none" and results["notes"] == []
    x = data.test.images.float()
    probability = pyro_aevb.predict(run.pair, x)
    net = run.pair.sources["pair"]
    with torch.no_grad():
        torch.testing.assert_close(probability, net.logits(x).softmax(1))
        (units,) = pyro_aevb.encode(run.pair, x).values()
        assert torch.equal(units, net.codes(x)) and units.shape == (60, 3)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"pair": "VAE", "algorithm": "greedy"}, "it has no `layers`"),
        (
            {"pair": "DenoisingLayer", "algorithm": "greedy"},
            "DenoisingLayer: it has no `layers`, .* or leave --algorithm greedy out",
        ),
        ({"pair_parameters": {"hidden": [1.5]}}, "--pair.hidden is .* a list of whole numbers"),
        (
            {"pair_parameters": {"corruption_options": {"rat": 1}}},
            "^--pair.corruption_options: masking has no option 'rat'",
        ),
        (
            {"pair_parameters": {"corruption": "none", "corruption_options": {"rate": 1}}},
            "add --pair.corruption masking or",
        ),
        ({"binarize": "dynamic"}, "add --binarize none"),
        ({"epochs": 6}, "before its last one take 6"),
        ({"algorithm_options": {"num_labels": 0}}, "it must lie between 2 and 1297"),
        ({"algorithm_options": {"pretraining_epochs": -1}}, "must be 0 or more"),
        ({"algorithm_options": {"layer_options": {"k": 2}}}, "svi has no option 'k'"),
        ({"algorithm_options": {"pretraining_epochs": 1.5}}, "it takes a whole number"),
        ({"algorithm_options": {"num_labels": "all"}}, "is 'all'; it takes a whole number"),
        ({"algorithm_options": {"layer_options": 3}}, "it takes names with their values"),
        ({"pair_parameters": {"corruption_options": {"exact": 3}}}, "it takes true or false"),
        ({"pair_parameters": {"num_classes": 3}}, "index 8 is out of bounds"),
        ({"pair_parameters": {"corruption_options": {"corrupted_weight": -1}}}, "0 or more"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    given = {
        "pair": "StackedDenoisingAutoencoder",
        "binarize": "none",
        "epochs": 7,
        **arguments,
        "algorithm_options": {"pretraining_epochs": 2, **arguments.get("algorithm_options", {})},
    }
    if given["pair"] != "StackedDenoisingAutoencoder":
        given["algorithm_options"] = {}
    with pytest.raises(UsageError, match=words):
        pyro_aevb.fit(data="digits", out=str(tmp_path / "run"), show=False, **given)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_labels_of_no_class_are_refused(tmp_path):
    labels = split().labels.clone()
    labels[-1] = -1
    parts = [split(), split(), Split(split().images, labels, 1)]
    data = DataSet("bits", *parts, "bits", "none")
    said = "has 3 classes, 0 to 2, and 'label' of the test split of bits lies between -1 and 2"
    with pytest.raises(UsageError, match=said):
        pyro_aevb.fit("StackedDenoisingAutoencoder", data, out=str(tmp_path), show=False)


def test_classes_without_labels_are_named_in_a_note_that_stays(tmp_path):
    """Labels of 5, 7 and 9 only make ten classes, of which seven are never seen."""
    one = split(60)
    parts = [Split(one.images, 2 * one.labels + 5, 1)] * 3
    data = DataSet("bits", *parts, "bits", "none")
    how = {"epochs": 1, "algorithm_options": {"pretraining_epochs": 0}, "show": False}
    run = pyro_aevb.fit(
        "StackedDenoisingAutoencoder", data, {"hidden": [4]}, out=str(tmp_path / "run"), **how
    )
    (note,) = run.results["notes"]
    assert "7 of 10 classes do not occur in the training labels: 0, 1, 2, 3, 4, 6, 8;" in note
    assert pyro_aevb.evaluate(run, data=data, show=False)["notes"] == [note]


@pytest.mark.parametrize("pair", ["StackedDenoisingAutoencoder", "DeepBeliefNet"])
def test_data_outside_0_and_1_are_no_probabilities(pair, tmp_path):
    values = 100 * torch.rand(60, D, generator=torch.Generator().manual_seed(0))
    parts = [Split(values, split(60).labels, 1)] * 3
    data = DataSet("wide", *parts, "numbers", "none")
    how = {"epochs": 4, "algorithm_options": {"pretraining_epochs": 1}, "show": False}
    with pytest.raises(
        UsageError, match=r"layer 1 of \w+ takes data in \[0, 1\], and these lie in"
    ):
        pyro_aevb.fit(pair, data, {"hidden": [4]}, out=str(tmp_path), **how)


def test_a_corruption_that_reaches_the_guide_alone_says_nothing_of_a_classifier(tmp_path):
    data = DataSet("bits", *[split(60, seed) for seed in range(3)], "bits", "none")
    how = {"epochs": 2, "algorithm_options": {"pretraining_epochs": 1}, "show": False}
    pair = StackedDenoisingAutoencoder((D,), C, [4])
    run = pyro_aevb.fit(pair, data, out=str(tmp_path / "run"), **how)
    with pytest.raises(UsageError, match="reads x in its model"):
        pyro_aevb.evaluate(run, pair=pair, data=data, corruption="gaussian", show=False)


def test_a_set_without_labels_is_refused_by_name(tmp_path):
    parts = [Split(split().images, None, 1)] * 3
    data = DataSet("bare", *parts, "bits", "none")
    with pytest.raises(UsageError, match="needs data with labels, and bare has none"):
        pyro_aevb.fit("StackedDenoisingAutoencoder", data, out=str(tmp_path / "run"), show=False)


def test_the_first_of_codes_that_are_kept_are_as_many():
    images = torch.rand(10, 1, 2, 2)
    coded = Coded(Batches(Split(images, None, 1), "none"), lambda x: x.flatten(1))
    for _ in range(2):
        few = coded.first(4)
        assert len(few) == 4 and torch.equal(few.take(torch.arange(4)), images[:4].flatten(1))
        coded.keep()
