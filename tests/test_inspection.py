"""Every breach of the contract is named in one line, with the site and the remedy."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, batches, matrix, ready
from pyro.distributions.transforms import Planar
from pyro.infer import config_enumerate

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import score
from pyro_aevb.models import VAE, Autoencoder


def normal(name, x, loc=0.0, obs=None, event_dims=1):
    return pyro.sample(name, dist.Normal(loc, 1.0).expand(x.shape).to_event(event_dims), obs=obs)


def code(x, plate="data"):
    with pyro.plate(plate, len(x)):
        normal("z", x)


def plain(x, z=None, likelihood=None):
    """The model that all others are spoilt copies of; a z given is outside the plate."""
    with pyro.plate("data", len(x)):
        z = normal("z", x) if z is None else z
        likelihood = likelihood or (lambda z: dist.Normal(z, 1.0))
        pyro.sample("x", likelihood(z).to_event(1), obs=x)


def nothing(x):
    pass


def code_only(x, event_dims=1):
    normal("z", x[0], event_dims=event_dims)


def weight(x):
    return pyro.sample("w", dist.Normal(0.0, 1.0))


def seen(x, **options):
    normal("x", x, obs=x, **options)


def in_data(*sites):
    """The sites of functions of x inside the plate of the data."""

    def run(x):
        with pyro.plate("data", len(x)):
            for site in sites:
                site(x)

    return run


# Spoilt ones, one breach each


def no_plate(x):
    normal("z", x[0])
    seen(x, event_dims=2)


def code_outside(x):
    plain(x, z=normal("z", x[0]).expand(x.shape))


def topics(x, then=lambda x: None):
    with pyro.plate("data", len(x)):
        with pyro.plate("topics", 2):
            normal("z", torch.zeros(2, len(x)), event_dims=0)
        then(x)


topics_on_the_left = functools.partial(topics, then=seen)


def two_batches(x):
    with pyro.plate("data", len(x)):
        seen(x)
    with pyro.plate("others", len(x)):
        normal("y", x, obs=x[:, :1])


def plate_of_another_size(x):
    with pyro.plate("data", 600):
        normal("x", torch.zeros(600, 3), obs=torch.zeros(600, 3))


def part_of_the_batch(x):
    with pyro.plate("data", len(x), subsample_size=2) as i:
        normal("x", x[i], obs=x[i])


def ragged(x):
    with pyro.plate("data", len(x)):
        for t in range(3 + bool(x[0, 0] > x[-1, 0]) + bool(x[-1, 1] > x[0, 1])):
            normal(f"x{t}", x[:, :1] + t, obs=x[:, :1] + t)


def a_loop(x):
    for i in pyro.plate("data", len(x)):
        normal(f"x{i}", x[i], obs=x[i])


def a_loop_of_one(x):
    for _ in pyro.plate("all", 1):
        seen(x, event_dims=2)


def size_of_the_batch(x):
    w = weight(x)
    with pyro.plate("data", size=len(x), subsample_size=len(x)):
        seen(x, loc=w)


def weight_without_size(x):
    w = weight(x)
    with pyro.plate("data", len(x)):
        seen(x, loc=w)


no_event_in_data = in_data(lambda x: seen(x, event_dims=0))
no_event_in_code = in_data(lambda x: normal("z", x, event_dims=0), seen)
unobserved = in_data(lambda x: normal("x", x))
observed_twice = in_data(seen, lambda x: normal("again", x, obs=x))
observing = in_data(lambda x: normal("z", x), lambda x: normal("seen", x, obs=x))
with_a_factor = in_data(seen, lambda x: pyro.factor("f", torch.ones(len(x))))
of_doubles = in_data(lambda x: seen(x, loc=x @ torch.zeros(3, 3).double()))
not_a_number = in_data(lambda x: normal("z", x, torch.full(x.shape, torch.nan)))


def no_event_in_weights(x):
    code_only(x, event_dims=0)
    with pyro.plate("data", size=40, subsample_size=len(x)):
        seen(x)


def without_an_inverse():
    flow = Planar(3)  # in the closure as a module

    def model(x):
        base = dist.Normal(torch.zeros_like(x), 1.0)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.TransformedDistribution(base, [flow]))
            seen(x + 0 * z)

    return model


def of_an_unknown_tensor():
    holder = {"loc": torch.zeros(2, requires_grad=True)}  # not in the closure as a module

    def guide(x):
        with pyro.plate("data", len(x)):
            normal("z", x, torch.cat([holder["loc"], torch.zeros(1)]))

    return guide


def of_a_late_parameter():
    calls = []

    def guide(x):
        calls.append(x)
        loc = pyro.param(f"loc{min(len(calls), 2)}", torch.zeros(3))
        with pyro.plate("data", len(x)):
            normal("z", x, loc)

    return guide


other_plate = functools.partial(code, plate="batch")
inf = functools.partial(plain, likelihood=lambda z: dist.Normal(z / 0, 1.0, validate_args=False))
grey = functools.partial(plain, likelihood=lambda z: dist.Bernoulli(logits=z))
wide = functools.partial(plain, likelihood=lambda z: dist.Normal(z @ torch.zeros(7, 3), 1.0))
BREACHES = {
    "no plate": (no_plate, code_only, "'x'", 'pyro.plate("data", len(x))'),
    "a loop of one": (a_loop_of_one, nothing, "'x'", 'pyro.plate("data", len(x))'),
    "a part": (part_of_the_batch, nothing, "draws 2 of the 5 data", "--batch-size 2"),
    "ragged": (ragged, nothing, "'x3' is there in some batches alone", "x.shape[1], and mask"),
    "size": (plate_of_another_size, nothing, "size 600", "size=N, subsample_size=len(x)"),
    "N of the batch": (size_of_the_batch, weight, "'data' changes", "number of training data"),
    "no N": (weight_without_size, weight, "'w'", "size=N, subsample_size=len(x)"),
    "a loop": (a_loop, nothing, "'x0'", 'pyro.plate("data", len(x))'),
    "plate on the left": (topics_on_the_left, topics, "plate 'topics' to the left", "dim=-2"),
    "no common plate": (two_batches, nothing, "'x' and 'y' share no plate", "one data plate"),
    "global in model": (code_outside, code, "'z'", "same plate on both sides"),
    "global in guide": (plain, code_only, "'z'", "same plate on both sides"),
    "names of plates": (plain, other_plate, "'z'", "same plate on both sides"),
    "model alone": (plain, nothing, "'z' is in the model but not in the guide", "in the guide"),
    "guide alone": (
        *(lambda x: plain(x, z=x), code),
        *("'z' is in the guide but not in the model", "sample it in the model"),
    ),
    "observed twice": (observed_twice, nothing, "'x' and 'again' are both x", "exactly one"),
    "unobserved": (unobserved, code, "no observed site", "obs=x"),
    "guide observes": (plain, observing, "the guide observes", "only the model has obs=x"),
    "event of code": (no_event_in_code, code, "'z'", ".to_event("),
    "event of data": (no_event_in_data, nothing, "'x'", ".to_event("),
    "event of weights": (
        *(no_event_in_weights, lambda x: code_only(x, event_dims=0)),
        *("'z'", ".to_event("),
    ),
    "factor": (with_a_factor, nothing, "pyro.factor 'f' in the model", "part of a sample site"),
    "no inverse": (without_an_inverse(), code, "'z' has no log-probability", "an inverse"),
    "doubles": (of_doubles, nothing, "the model failed", "data are float32"),
    "infinite": (inf, code, "'x'", "not finite"),
    "not a number": (plain, not_a_number, "the guide", "not finite"),
    "grey": (grey, code, "'x'", "--binarize dynamic"),
    "width": (wide, code, "the model failed on a batch of shape (5, 3)", "of shape (3,)"),
    "unknown tensor": (plain, of_an_unknown_tensor(), "shape (2,)", "pyro.module"),
    "late parameter": (plain, of_a_late_parameter(), "'param:loc2'", "on the first one"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_named_in_one_line_with_the_remedy(name):
    model, guide, what, remedy = BREACHES[name]
    with pytest.raises(UsageError) as error:
        ready((model, guide), torch.rand(8, 3) + 0.1)
    message = str(error.value)
    # Pyro's own words, which are passed on, have no quotes.
    assert (what in message or f"site {what[1:-1]} " in message) and remedy in message
    assert "\n" not in message and len(message) < 450


@pytest.mark.parametrize("width", [1, 5])  # that broadcast, or equal the batch
def test_a_forgotten_to_event_is_found_at_unlucky_widths(width):
    with pytest.raises(UsageError, match=r"'?x'?.*\.to_event\("):
        ready((no_event_in_data, nothing), torch.rand(8, width))


def test_one_datum_is_too_few():
    with pytest.raises(UsageError, match="at least 2 data, not 1"):
        ready((plain, code), torch.rand(1, 3))


def test_a_plate_of_the_guide_that_does_not_know_n():
    def model(x):
        w = weight(x)
        with pyro.plate("data", size=600, subsample_size=len(x)):
            normal("x", x, w * normal("z", x), obs=x)

    def guide(x):  # then the objective is 600/8 (log p(x|z) + log p(z)) - log q(z|x)
        weight(x)
        code(x)

    with pytest.raises(UsageError, match="'data'.*size=N"):
        ready((model, guide), torch.rand(8, 3))


def test_what_is_missing_may_be_masked_out():
    seen = torch.rand(8, 3) > 0.4

    def model(x):
        with pyro.plate("data", len(x)):
            of_batch = dist.Normal(0.3, 1.0).expand(x.shape).mask(x > -9).to_event(1)
            pyro.sample("x", of_batch, obs=x)

    x = torch.where(seen, torch.randn(8, 3), -99.0)
    pair = ready((model, nothing), x)
    expected = torch.where(seen, torch.distributions.Normal(0.3, 1.0).log_prob(x), 0.0).sum(1)
    found = score(pair, batches(x), 1).reconstruction[0]
    torch.testing.assert_close(torch.from_numpy(found).float(), expected)


# What a pair is made of


def test_the_description_of_local_and_global_latents():
    description = ready(BayesianPPCA(40), matrix(9, 3)).description
    (z,), (W,) = description.local_sites, description.global_sites
    assert (z.name, z.event_shape, z.prior) == ("z", (2,), "Normal")
    assert (z.posterior, z.density) == ("MultivariateNormal", True)
    assert (W.name, W.event_shape, W.prior, W.density) == ("W", (3, 2), "Normal", True)
    assert (description.observed, description.event_shape) == ("x", (3,))
    assert (description.plate, description.plate_size) == ("data", 40)
    assert description.undefined() is None and description.weights_undefined() is None
    assert description.num_parameters == 0
    description = ready(PPCA(), matrix(9, 4)).description
    assert description.num_parameters == 4 * 2 + 4 + 2 * 4 + 2 + 2
    assert description.plate_size is None and "points" in description.weights_undefined()
    names = [site.name for site in ready(Hierarchy(), matrix(9, 4)).description.local_sites]
    assert names == ["z2", "z1"]


def test_the_shipped_pairs_are_described():
    x = (torch.rand(9, 1, 4, 4) > 0.5).float()
    vae = ready(VAE((1, 4, 4), latent_dim=3, hidden=[6]), x).description
    assert (vae.observed, vae.event_shape, vae.likelihood) == ("x", (1, 4, 4), "Bernoulli")
    encoder, decoder = 16 * 6 + 6 + 2 * (6 * 3 + 3), 3 * 6 + 6 + 6 * 16 + 16
    assert vae.num_parameters == encoder + decoder and vae.local_sites[0].density
    masked = ready(Autoencoder((1, 4, 4), latent_dim=3, hidden=[6]), x).description
    assert not masked.local_sites[0].density and "'z'" in masked.undefined()


def test_deterministic_sites_are_no_observations():
    def model(x):
        with pyro.plate("data", len(x)):
            loc = pyro.deterministic("loc", 2 * normal("z", x), event_dim=1)
            normal("x", x, loc, obs=x)

    assert ready((model, code), torch.rand(8, 3)).description.observed == "x"


def test_an_enumerated_site_has_no_importance_weights():
    @config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3) / 3))
            normal("x", x, c.float()[..., None], obs=x)

    description = ready((model, nothing), torch.rand(8, 3)).description
    assert description.enumerated == ("c",) and "'c' is enumerated" in description.undefined()


def test_inspection_leaves_the_random_state_and_the_stores_alone():
    source = PPCA().eval()
    x = source.data(6)
    state = torch.get_rng_state()
    pair = ready(source, x)
    assert torch.equal(state, torch.get_rng_state())
    assert source.rows.items == [5, 5, 4, 2, 2, 5, 4, 5] and not dict(pyro.get_param_store())
    assert pair.description.parameters["pair.W"] == (4, 2)
