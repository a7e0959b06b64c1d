"""Updates as CUDA graphs, without a GPU: a recorder stands for CUDA's streams and graphs.

A graph is recorded operation by operation, and nothing of it is done while it is; a replay does the
same operations on the same tensors, with new random numbers, as CUDA's do. What the host would have
to wait for is an error while a graph is recorded.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_aevb.engine import cuda_graph
from pyro_aevb.engine.capture import Captured, capture
from pyro_aevb.engine.cuda_graph import WARM_UP, GraphedUpdate
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training import learner as learning
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.trainer import Trainer, seed_everything

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}


class Recording(TorchDispatchMode):
    """The operations that are called inside, and what they change as it was before."""

    def __init__(self):
        super().__init__()
        self.done, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._schema.name in WAITING:
            raise RuntimeError("operation not permitted when stream is capturing")
        places = [*zip(args, func._schema.arguments, strict=False)]
        written = [a for a, s in places if s.alias_info is not None and s.alias_info.is_write]
        for tensor in pytree.tree_leaves(written):
            self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        made = func(*args, **kwargs)
        self.done.append((func, args, kwargs, made))
        return made


class FakeCUDA:
    """Streams and graphs of ``torch.cuda``, and the order in which they are called."""

    def __init__(self):
        self.calls, self.now = [], "main"
        self.CUDAGraph = lambda: SimpleNamespace(done=None, replay=None)

    def Stream(self):
        return SimpleNamespace(
            name="side", wait_stream=lambda other: self.calls.append(f"side waits for {other.name}")
        )

    def current_stream(self):
        return SimpleNamespace(
            name=self.now,
            wait_stream=lambda other: self.calls.append(f"{self.now} waits for {other.name}"),
        )

    @contextmanager
    def stream(self, stream):
        self.now = stream.name
        yield
        self.now = "main"

    @contextmanager
    def graph(self, graph):
        self.calls.append("recorded")
        state = torch.get_rng_state()
        with Recording() as recording:
            yield
        with torch.no_grad():
            for tensor, value in recording.before.values():
                tensor.copy_(value)
        torch.set_rng_state(state)

        @torch.no_grad()
        def replay():
            self.calls.append("replayed")
            for func, args, kwargs, made in recording.done:
                again = func(*args, **kwargs)
                for old, new in zip(*map(pytree.tree_leaves, (made, again)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        graph.replay = replay


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCUDA()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(cuda_graph.torch.cuda, name, getattr(fake, name))
    return fake


def regression(calls):
    """Noisy descent on a line of two weights, by Adam: its update and its optimizer."""
    weight = torch.tensor([0.5, -0.5])
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)

    def update(index, x):
        calls(index)
        noisy = x + 0.1 * torch.randn_like(x)
        error = noisy @ weight - index
        weight.grad = 2 * (noisy.T @ error) / len(x)
        optimizer.step()
        return error.square().mean()

    return update, optimizer, weight


def test_a_recorded_update_does_what_the_update_does(cuda):
    """New batches, a rate that falls, and a batch of another length between them, to rounding."""
    seen = []

    def calls(index):
        seen.append((cuda.now, len(index)))

    results = []
    for record in (False, True):
        update, optimizer, weight = regression(calls)
        step = GraphedUpdate(update, optimizer, 6) if record else update
        torch.manual_seed(0)
        del seen[:], cuda.calls[:]
        losses = []
        for k, size in enumerate((6, 6, 6, 6, 6, 4, 6, 6)):
            optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
            losses.append(step(torch.arange(float(size)), torch.randn(size, 2)))
        results.append((torch.stack(losses), weight, optimizer.param_groups[0]["lr"]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=0)
    assert results[0][2] == results[1][2] == 0.1 / 8
    # The first updates on a side stream that waits for the main one, which then waits for it; the
    # recording; after it nothing is called but the batch of another length.
    assert cuda.calls[: 2 * WARM_UP] == ["side waits for main", "main waits for side"] * WARM_UP
    assert cuda.calls[2 * WARM_UP :] == ["recorded", *["replayed"] * 4]
    assert seen == [*[("side", 6)] * WARM_UP, ("main", 6), ("main", 4)]


def test_an_update_that_the_host_waits_for_cannot_be_recorded(cuda):
    """The optimizer is left with a rate that is a number, as it was."""
    update, optimizer, _ = regression(lambda index: None)
    step = GraphedUpdate(lambda index, x: update(index, x) * float(x.sum()), optimizer, 6)
    batch = torch.arange(6.0), torch.randn(6, 2)
    for _ in range(WARM_UP):
        step(*batch)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        step(*batch)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["capturable"]) == (0.1, False)


@pytest.mark.parametrize(
    ("function", "waits"),
    [
        (lambda x: x[x > 0].sum(), "a boolean mask"),
        (lambda x: x.clone().index_put_((x > 0,), torch.zeros(())), None),
        (lambda x: x.clone().index_put_((x > 0,), x[x > 0]), "a boolean mask"),
        (lambda x: (x > 0).nonzero().sum(), "nonzero"),
        (lambda x: x.masked_select(x > 0).sum(), "masked_select"),
        (lambda x: torch.unique(x.round()).sum(), "_unique2"),
        (lambda x: torch.where(x > 0, x, 0).sum(), None),
        (lambda x: x[torch.tensor([1, 2])].sum(), None),
    ],
)
def test_captured_code_says_what_a_graph_could_not_hold(function, waits):
    torch.manual_seed(0)
    captured = capture(lambda x: [function(x)], [torch.randn(50)], [torch.randn(50)])
    assert captured.waits == waits


def run(pair, monkeypatch, graphs, said=None):
    """Three epochs of compiled steps, which here are the captured graphs themselves."""
    monkeypatch.setattr("pyro_aevb.training.step.compile_captured", lambda graph, *_, **__: graph)
    monkeypatch.setattr(learning, "graphable", lambda optimizer: graphs)
    monkeypatch.setattr(learning, "shares_memory", lambda of: False)  # no look at each loss
    seed_everything(0)
    made = prepare(pair, "digits:500", {"hidden": [8], "latent_dim": 3}, device="cpu")
    trainer = Trainer(
        made.pair, made.train, made.valid.first(20), make_algorithm(None, made.pair, made.train),
        epochs=3, batch_size=90, compile="on", schedule="cosine", optimizer_options={"fused": True},
    )  # fmt: skip
    if said is not None:
        trainer.compiling.begin(
            trainer._learners, trainer._learners.order.batches(0, torch.device("cpu"))[0], said
        )
        return trainer, None
    history = [{k: v for k, v in row.items() if v and "second" not in k} for row in trainer.run()]
    return trainer, (history, made.pair.tensors())


@pytest.mark.parametrize("pair", ["VAE", "BayesianVAE", "AdversarialAutoencoder"])
def test_a_run_of_recorded_updates_is_the_run_of_plain_ones(pair, monkeypatch, cuda):
    """Epochs of 4 full batches and a smaller one, a rate that falls; one phase and two."""
    _, (plain, tensors) = run(pair, monkeypatch, graphs=False)
    assert cuda.calls == []
    trainer, (recorded, others) = run(pair, monkeypatch, graphs=True)
    # The rate is a tensor of 32 bits in one of them, and a number of 64 in the other.
    for row, other in zip(plain, recorded, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
    for name, value in tensors.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-6)
    phases = len(trainer._learners.each)
    assert cuda.calls.count("recorded") == phases
    full = trainer._learners.order.num_data // 90
    assert cuda.calls.count("replayed") == phases * (3 * full - WARM_UP)


def test_a_pair_that_waits_is_trained_without_graphs(monkeypatch, cuda):
    from pyro_aevb.models import VAE

    class Masked(VAE):
        def model(self, x):
            super().model(x)
            x[x > 0.5].sum()

    said = []
    trainer, _ = run(Masked, monkeypatch, graphs=True, said=said.append)
    assert said == ["Masked is trained without CUDA graphs: it has a boolean mask"]
    assert trainer._learners.each[0].graph is None


@pytest.mark.parametrize(("device", "waits"), [("meta", "a copy to the host"), ("cpu", None)])
def test_a_copy_to_the_host_is_one_that_a_graph_could_not_hold(device, waits):
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(3, device=device)
    copied = graph.call_function(torch.ops.aten._to_copy.default, (x,), {"device": "cpu"})
    graph.output([copied])
    assert Captured(torch.fx.GraphModule({}, graph), ()).waits == waits
