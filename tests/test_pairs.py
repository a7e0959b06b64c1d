"""Every form a pair may have; each trains its own tensors, whatever else is in the process."""

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import batches, matrix, ready
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

from pyro_aevb.data import DataSet, Split
from pyro_aevb.errors import UsageError, of_kind
from pyro_aevb.estimators.importance import score
from pyro_aevb.models import VAE
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.locate import constructor
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import encode
from pyro_aevb.training.objectives.elbo import TraceELBO

FILE = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, event_shape, width: int = 2, num_data=None, data_mean=None):
        super().__init__()
        if width < 0:
            raise RuntimeError("negative\\nwidth")
        self.encoder, self.decoder = nn.Linear(*event_shape, width), nn.Linear(width, *event_shape)
        self.given = event_shape, num_data, data_mean
    def model(self, x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(torch.zeros(self.decoder.in_features), 1.0).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


whole = Linear((3,), 2)
encoder, decoder = whole.encoder, whole.decoder

def model(x):
    pyro.module("decoder", decoder)
    whole.model(x)
def guide(x):
    pyro.module("encoder", encoder)
    whole.guide(x)

Half = type("Half", (), {"model": model})
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "my_pairs.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("import torch\n\nmodel = torch.nonsense\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_pairs", None)
    return tmp_path / "my_pairs.py"


def few(n=6):
    return matrix(n, 3).float()


# Where pairs come from


CLASS = ["{file}:Linear", "my_pairs:Linear", "my_pairs.Linear"]


@pytest.mark.parametrize("source", [*CLASS, "{file}", "{file}:whole", "my_pairs"])
def test_a_pair_is_found_in_a_file_or_a_module(file, source):
    parameters = {"event_shape": (3,)} if source.endswith("Linear") else {}
    pair = load_pair(source.format(file=file), parameters)
    description = inspect(pair, few())
    assert description.num_parameters == (3 * 2 + 2) + (2 * 3 + 3)
    encoder = next(m for m in pair.modules() if isinstance(m, nn.Linear) and m.in_features == 3)
    torch.testing.assert_close(encode(pair, few())["z"], encoder(few()).detach())


def test_a_pair_is_a_python_object_too(file):
    import my_pairs

    whole = my_pairs.whole
    for source in (whole, (my_pairs.model, my_pairs.guide), my_pairs):
        pair = ready(source, few())
        assert {*map(id, pair.trainable().values())} == {*map(id, whole.parameters())}
    assert load_pair(pair) is pair
    assert load_pair(my_pairs.Linear, {"event_shape": (3,), "width": 5}).model.__self__.given
    assert load_pair("VAE", {"event_shape": (3,)}).name == "VAE"
    assert constructor("VAE") is VAE and constructor(str(file)) is None


def test_the_constructor_is_told_about_the_data(file):
    images = (10 * matrix(20, 3).abs()).to(torch.uint8)
    split = Split(images, None, 10)
    data = DataSet("own", split, split, split, "own", "none")
    source = load_pair(f"{file}:Linear", {"width": 4}, data).model.__self__
    shape, num_data, mean = source.given
    assert shape == (3,) and num_data == 20 and source.encoder.out_features == 4
    torch.testing.assert_close(mean, images.float().mean(0) / 10)
    told = load_pair(f"{file}:Linear", {"num_data": 7}, data).model.__self__
    assert told.given[1] == 7  # what the user says comes first


@pytest.mark.parametrize(
    "source, parameters, words",
    [
        ("VAF", {}, ["'VAF'", "VAE", "file.py:Name"]),
        ("nowhere.at_all:VAE", {}, ["nowhere.at_all", "file.py:Name"]),
        ("nowhere.py", {}, ["'nowhere.py'", "existing Python file"]),
        ("{file}:Liner", {}, ["'Liner'", "did you mean 'Linear'"]),
        ("{dir}/broken.py", {}, ["broken.py failed at line 3", "nonsense"]),
        ("broken:model", {}, ["broken failed at line 3", "nonsense"]),
        ("{file}:Linear", {}, ["my_pairs:Linear", "'event_shape'", "--pair.event_shape"]),
        ("{file}:Linear", {"event_shape": (3,), "widht": 4}, ["'widht'", "did you mean 'width'"]),
        ("{file}:Linear", {"event_shape": (3,), "width": -1}, ["=-1", "RuntimeError: negative"]),
        ("{file}", {"width": 4}, ["my_pairs", "'width'", "remove"]),
        ("{file}:Half", {}, ["has no `guide`", "model(x) and guide(x)"]),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(file, source, parameters, words):
    with pytest.raises(UsageError) as error:
        load_pair(source.format(file=file, dir=file.parent), parameters)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


# Styles of parameters: every one trains, saves and loads, beside a twin of the same names


class ClassicVAE(nn.Module):
    """As in Pyro's own example: nets registered by name at each call."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = x.new_zeros(x.shape[0], 2), x.new_ones(x.shape[0], 2)
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            pyro.sample("obs", dist.Normal(self.decoder.forward(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder.forward(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(z_loc, z_scale.exp()).to_event(1))


class Plain:
    """A class that is no module, holding modules."""

    model, guide = ClassicVAE.model, ClassicVAE.guide

    def __init__(self):
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)


class Params:
    """Tensors of `pyro.param` alone, one of them constrained."""

    def model(self, x):
        weight = pyro.param("weight", lambda: torch.randn(2, 3))
        noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, noise).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = x @ pyro.param("gain", lambda: torch.randn(3, 2))
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))


def functions():
    """Two functions over modules that only `pyro.module`, or the closure, names."""
    nets, encoder = {"decoder": nn.Linear(2, 3)}, nn.Linear(3, 2)

    def model(x):
        decoder = pyro.module("decoder", nets["decoder"])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    return model, guide


class Bayesian(PyroModule):
    """`PyroSample` weights with an automatic guide, and a `PyroParam`."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](2, 3)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
        self.scale = PyroParam(torch.tensor(0.7), constraint=constraints.positive)
        self.encoder = nn.Linear(3, 2)
        self.weights = AutoNormal(poutine.block(self.model, hide=["z"]))

    def model(self, x):
        weight = self.layer.weight
        with pyro.plate("data", size=40, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + self.layer.bias, 1.0).to_event(1), obs=x)

    def guide(self, x):
        self.weights(x)
        with pyro.plate("data", size=40, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), self.scale).to_event(1))


STYLES = [ClassicVAE, Plain, Params, functions, Bayesian]
SIZES = {ClassicVAE: 25, Plain: 25, Params: 6 + 1 + 6, functions: 17, Bayesian: 8 + 1 + 3 + 6 + 6}


def trained(style, seed, steps=5):
    pyro.set_rng_seed(seed)
    pair = ready(style(), few())
    optimizer = torch.optim.SGD(pair.trainable().values(), lr=1e-3)
    for _ in range(steps):
        with pair.active(), WholeBatch():
            TraceELBO().differentiable_loss(pair.model, pair.guide, few()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return pair


@pytest.mark.parametrize(
    "kind, fit, unfit, words",
    [
        (int, [2, np.int64(2)], [2.0, True, "2", None, [2]], "a whole number"),
        (float | None, [2, 2.5, np.float32(2), None], [False, "2"], "a number"),
        (bool, [True], [1, "no"], "true or false"),
        (
            Sequence[int],
            [[2], (2,), [], np.array([2])],
            [[2.5], "ab", 2, {2: 2}],
            "a list of whole",
        ),
        (tuple[int, ...], [(2, 3), [2]], [(2, "a")], "a list of whole numbers"),
        (tuple[int, str], [(2, "a")], ["2a"], "a list"),
        (Mapping[str, Any] | None, [{"a": 1}, None], [3, [1]], "names with their values"),
        (Literal["one", "two"] | None, ["one", None], [1], "'one' or 'two'"),
        (Any, [2, "a", None], [], ""),
        (nn.Module, [2], [], ""),
        ([int], [2], [], ""),
    ],
)
def test_values_are_of_the_kind_that_a_signature_states(kind, fit, unfit, words):
    for value in fit:
        of_kind("--x", value, kind)
    for value in unfit:
        with pytest.raises(UsageError, match=f"--x is .*; it takes {words}"):
            of_kind("--x", value, kind)


def test_a_word_that_is_none_of_those_stated_is_named_with_them():
    with pytest.raises(UsageError, match="--x='three' is unknown; choose one of one, two"):
        of_kind("--x", "three", Literal["one", "two"] | None)


def test_parameters_of_a_constructor_are_of_the_kinds_that_it_states():
    class Base(Params):
        def __init__(self, width: int = 3, scale: float = None):
            super().__init__()

    class Own(Base):
        def __init__(self, note: "Unknown" = "", **options):  # noqa: F821
            super().__init__(**options)

    load_pair(Own, {"width": 4, "scale": None, "note": 3})
    with pytest.raises(UsageError, match=r"--pair.width is \[4\]; it takes a whole number"):
        load_pair(Own, {"width": [4]})


def values(pair):
    return {name: value.detach().clone() for name, value in pair.tensors().items()}


def differ(one, other):
    return {name for name in one | other if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("style", STYLES)
def test_a_second_pair_of_the_same_names_trains_as_if_it_were_alone(style):
    start, alone = values(trained(style, 1, steps=0)), values(trained(style, 1))
    assert differ(start, alone) == set(start) and len(start) >= 3
    first = trained(style, 2)
    assert first.description.num_parameters == SIZES[style]
    before = values(first)
    assert not differ(values(trained(style, 1)), alone)
    assert not differ(values(first), before)
    assert not dict(pyro.get_param_store())


@pytest.mark.parametrize("style", STYLES)
def test_saved_tensors_give_the_same_pair(style):
    pair, other = trained(style, 1), trained(style, 2, steps=0)
    x = few(20)
    assert differ(values(pair), values(other))
    other.load_tensors(values(pair), "a file")
    one, two = (score(p, batches(x), 30, weight_samples=2).log_weight for p in (pair, other))
    assert (one == two).all()


def test_tensors_of_another_pair_are_refused_and_nothing_is_changed():
    before = values(pair := trained(ClassicVAE, 1))
    wide = {name: torch.zeros(9) if "bias" in name else value for name, value in before.items()}
    extra, short = before | {"more": torch.zeros(2)}, dict(list(before.items())[1:])
    for saved, words in ((short, "is missing there"), (extra, "'more'"), (wide, r"shape \(9,\)")):
        with pytest.raises(UsageError, match=f"a file belongs to another pair.*{words}"):
            pair.load_tensors(saved, "a file")
        assert not differ(values(pair), before)


def test_the_process_store_is_given_back_after_an_error():
    pyro.param("mine", torch.ones(2))
    pair = ready(Params(), few())
    with pytest.raises(ZeroDivisionError), pair.active(), pair.active():
        assert set(pyro.get_param_store()) == {"weight", "noise", "gain"}
        raise ZeroDivisionError
    assert set(pyro.get_param_store()) == {"mine"}
    assert set(pair.tensors()) == {"param:weight", "param:noise", "param:gain"}


def test_a_thread_waits_for_the_store_that_another_one_uses():
    class Source(nn.Module):
        def model(self, x):
            pyro.param("w", torch.tensor(1.0))

        guide = model

    pair, entered, left = load_pair(Source()), threading.Event(), threading.Event()

    def run():
        with pair.active():
            entered.set()
            left.wait(10)
            pair.model(None)

    other = threading.Thread(target=run)
    with pair.active():
        other.start()
        assert not entered.wait(0.3)
    left.set()
    other.join(10)
    # Its parameter is the pair's, though the first thread has left.
    assert list(pair.tensors()) == ["param:w"] and not dict(pyro.get_param_store())
