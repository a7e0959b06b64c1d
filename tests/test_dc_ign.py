"""Groups in which one factor varies, against loops; the loss, against gradients set by hooks."""

import copy
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from harness import assert_resumes
from test_decomposition import step
from torch import nn

import pyro_aevb
from pyro_aevb import DCIGN
from pyro_aevb.data import Batches, DataSet, Split
from pyro_aevb.data.batches import order
from pyro_aevb.engine.shared_draws import Draws
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import encode
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.trainer import Trainer, seed_everything

SIZES = {"kind": 2, "across": 5, "down": 4}
D, L, GROUP = 9, 5, 4
OPTIONS = {"group": GROUP, "invariance": 0.3, "rest": 2.0}


def grid(keep=None):
    """All combinations in a random order, or some of them; (N, 3)."""
    rows = np.array(list(product(*map(range, SIZES.values()))))
    return np.random.default_rng(5).permutation(rows)[:keep]


def batches(rows, x=None):
    columns = {name: torch.from_numpy(rows[:, k].copy()) for k, name in enumerate(SIZES)}
    if x is None:
        generator = torch.Generator().manual_seed(2)
        x = (torch.rand(len(rows), D, generator=generator) < 0.5).to(torch.uint8)
    return Batches(Split(x, None, 1, columns), "none", factors=SIZES)


def ready(data, **options):
    net = DCIGN((D,), latent_dim=L, hidden=[6])
    pair = load_pair(net)
    inspect(pair, data.take(torch.arange(5)))
    return net, make_algorithm(None, pair, data, OPTIONS | options)


def mates(rows, base, varies):
    """The data that share all else, by the value of what varies; the factors are 1, 2 and rest."""
    fixed = [k for k in range(3) if k != varies + 1] if varies < 2 else [1, 2]
    found = [n for n in range(len(rows)) if (rows[n, fixed] == rows[base, fixed]).all()]
    return sorted(found, key=lambda n: (rows[n, varies + 1] if varies < 2 else 0, n))


def test_it_is_plain_pytorch_with_gradients_replaced_by_hooks():
    """As the paper says it: after a backward pass of the ELBO of codes that were clamped."""
    rows = grid()
    data = batches(rows)
    seed_everything(0)
    net, learning = ready(data)
    how = {"epochs": 2, "batch_size": 15, "optimizer": "sgd", "lr": 0.1, "compile": "off"}
    made = Trainer(learning.pair, data, data, learning, **how)
    made.try_objective()
    twin = copy.deepcopy(net)
    state = torch.get_rng_state()
    history = made.run()
    torch.set_rng_state(state)
    free = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()
    for epoch in range(2):
        values = []
        for index in order(40, 0, epoch).split(15):
            n = len(index)
            chance, number = torch.rand(n), torch.randint(1 << 62, (n,))
            noise, chosen, active = torch.normal(torch.zeros(n, L), 1.0), [], []
            for i in range(n):
                start = i // GROUP * GROUP
                varies = sum(float(chance[start]) >= edge for edge in (0.25, 0.5))
                among = mates(rows, int(index[start]), varies)
                chosen.append(among[int(number[i]) % len(among)])
                active.append(free[varies])
            x, active = data.images[chosen].float(), torch.stack(active)
            loc, log_variance = twin.encoder(x)
            scale = (0.5 * log_variance).exp()
            means, scales = (
                torch.cat([part.mean(0).expand_as(part) for part in value.split(GROUP)])
                for value in (loc, scale)
            )
            away = (loc - means).detach()
            loc.register_hook(lambda g, a=active, away=away, n=n: torch.where(a, g, 0.3 * away / n))
            log_variance.register_hook(lambda g, a=active: torch.where(a, g, 0.0))
            z = torch.where(active, loc + scale * noise, means + scales * noise)
            logits = twin.likelihood(twin.decoder(z)).base_dist.logits
            cross = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
            kl = 0.5 * (loc**2 + scale**2 - 1 - log_variance)
            elbo = (kl.sum() + cross.sum()) / n
            clamped = torch.where(active, kl, 0.15 * away**2).sum() / n
            values += [float((clamped + cross.sum() / n).detach()) * n / 40]
            step(list(twin.parameters()), elbo, 0.1)
        assert history[epoch]["objective"] == pytest.approx(-sum(values), rel=1e-5)
    for value, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keep", [None, 24])
def test_a_group_shares_all_but_one_factor_uniformly(keep):
    """On all combinations, and on data where many have no partner: another group stands in."""
    rows = grid(keep)
    n = len(rows)
    _, learning = ready(batches(rows))
    torch.manual_seed(1)
    index = torch.arange(n).repeat_interleave(GROUP).repeat(150)
    drawn, varies = (value.reshape(-1, GROUP).numpy() for value in learning.draw(index))
    bases = index.reshape(-1, GROUP)[:, 0].numpy()
    assert (varies == varies[:, :1]).all()
    kinds = np.bincount(varies[:, 0], minlength=3)
    assert scipy.stats.chisquare(kinds, len(bases) * np.array([1, 1, 2]) / 4).pvalue > 0.01
    for kind in range(3):
        groups = {base: mates(rows, base, kind) for base in range(n)}
        alone = {base for base, group in groups.items() if len(group) == 1}
        assert bool(alone) == (keep is not None)
        counts = np.zeros((n, n))
        for base, group in zip(
            bases[varies[:, 0] == kind], drawn[varies[:, 0] == kind], strict=True
        ):
            members = groups[base] if base not in alone else groups[group[0]]
            assert set(group) <= set(members) and len(members) > 1
            np.add.at(counts[base], group, 1)
        seen = [counts[base, group] for base, group in groups.items() if base not in alone]
        expected = [np.full(len(c), c.sum() / len(c)) for c in seen]
        assert min(map(np.min, expected)) > 5
        degrees = sum(len(c) - 1 for c in seen)
        statistic = sum(((c - e) ** 2 / e).sum() for c, e in zip(seen, expected, strict=True))
        assert 0.01 < scipy.stats.chi2.sf(statistic, degrees) < 0.999


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    data = batches(grid())

    def make(checkpoint):
        seed_everything(3)
        _, learning = ready(data)
        how = {"epochs": 3, "batch_size": 15, "compile": "off", "seed": 3}
        return Trainer(learning.pair, data, data, learning, checkpoint, **how)

    assert_resumes(make, tmp_path / "c.pt", 5)  # of 9


def test_processes_draw_the_groups_of_one():
    """Each from its rows, in which whole groups lie."""
    _, learning = ready(batches(grid()))
    index = torch.randperm(40)[:16]
    plan = Draws(learning.draw, index[:3], "groups")
    torch.manual_seed(7)
    whole = learning.draw(index)
    shares = []
    for process, rows in enumerate((slice(0, 8), slice(8, 16))):
        torch.manual_seed(7)
        with plan.of(16, rows, process):
            shares.append(learning.draw(index[rows]))
    for value, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert torch.equal(value, torch.cat(parts))


def squares():
    """Squares and crosses at all places of an 8x8 image."""
    rows = np.array(list(product(range(2), range(6), range(6))))
    x = np.zeros((len(rows), 1, 8, 8), np.uint8)
    for image, (kind, across, down) in zip(x[:, 0], rows, strict=True):
        image[down : down + 3, across : across + 3] = 1
        image[down : down + 3 : 2, across : across + 3 : 2] = kind  # the corners
    columns = {name: torch.from_numpy(rows[:, k].copy()) for k, name in enumerate(SIZES)}
    split = Split(torch.from_numpy(x), None, 1, columns)
    sizes = {"kind": 2, "across": 6, "down": 6}
    return rows, DataSet("squares", split, split, split, "squares", "none", sizes)


def test_named_dimensions_come_to_hold_their_factors():
    """By the share of each dimension's variance that the means by a factor's values have."""
    rows, data = squares()
    few = torch.arange(72)
    train, valid = (
        Batches(data.train.subset(which), "none", factors=SIZES) for which in (few.repeat(20), few)
    )
    own = {}
    for name, options in (("dc_ign", {"rest": 1.0, "group": 12}), ("svi", None)):
        seed_everything(0)
        pair = load_pair(DCIGN((1, 8, 8), latent_dim=4, hidden=[50], activation="relu"))
        inspect(pair, valid.take(few[:5]))
        learning = make_algorithm(name, pair, train, options)
        how = {"epochs": 25, "batch_size": 72, "lr": 5e-3, "compile": "off"}
        Trainer(pair, train, valid, learning, **how).run()
        z = encode(pair, data.train.images.float())["z"].numpy()
        means = [[z[rows[:, k] == value].mean(0) for value in rows[:, k]] for k in range(3)]
        shares = np.var(means, 1) / z.var(0)  # (factor, dimension)
        own[name] = shares[1, 0], shares[2, 1]
    assert min(own["dc_ign"]) > 0.9
    assert max(own["svi"]) < 0.5


def test_factors_are_taken_in_the_order_asked_for_and_the_rest_may_be_left_out():
    data = batches(grid())
    _, learning = ready(data, factors="down, across", rest=0.0)
    torch.manual_seed(0)
    drawn, varies = learning.draw(torch.arange(40).repeat(20))
    rows = grid()
    for k, kind in ((2, 0), (1, 1)):
        groups = drawn.reshape(-1, GROUP)[varies[::GROUP] == kind].numpy()
        assert (np.ptp(rows[groups], 1).max(0) > 0).tolist() == [False, k == 1, k == 2]
    assert int(varies.max()) == 1


class Two(nn.Module):
    def __init__(self, event_shape):
        super().__init__()
        self.one = nn.Parameter(torch.zeros(()))

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = (a + b).sum(-1)[..., None, None, None] * self.one
            pyro.sample("x", dist.Normal(loc + 0 * x, 1.0).to_event(3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            for name in "ab":
                fn = dist.Normal(x.new_zeros(2) + self.one, 1.0).expand([len(x), 2])
                pyro.sample(name, fn.to_event(1))


@pytest.mark.parametrize(
    "pair, options, words",
    [
        ("Autoencoder", {}, "it needs one code, a vector with a normal prior"),
        (Two, {}, "and no other latent site"),
        ("DCIGN", {"group": 1}, "group is 1"),
        ("DCIGN", {"invariance": -1.0}, "invariance -1.0"),
        ("DCIGN", {"rest": float("inf")}, "rest inf"),
        ("DCIGN", {"factors": "acros"}, "no factor 'acros' .did you mean 'across'"),
        ("DCIGN", {"factors": "kind,across,down"}, "name fewer factors, or add rest: 0"),
        (
            "DCIGN",
            {"factors": "kind,down", "size": 2},
            "2 dimensions of the code for 2 factors and",
        ),
        ("DCIGN", {"data": "diagonal"}, "no two training data differ in across alone"),
        ("DCIGN", {"data": "digits"}, "say which columns are factors"),
    ],
)
def test_what_it_cannot_train_is_said_in_one_line(pair, options, words, tmp_path):
    options = dict(options)
    _, data = squares()
    source = options.pop("data", data)
    if source == "diagonal":
        few = data.train.subset(data.train.columns["across"] == data.train.columns["down"])
        source = DataSet("diagonal", few, few, few, "diagonal", "none", data.factors)
    parameters = {} if pair is Two else {"latent_dim": options.pop("size", 4)}
    with pytest.raises(UsageError, match=words) as raised:
        pyro_aevb.fit(
            pair(()) if pair is Two else pair,
            source,
            pair_parameters=parameters,
            algorithm="dc_ign",
            algorithm_options=options,
            out=str(tmp_path),
            show=False,
        )
    assert "\n" not in str(raised.value)
