r"""The speed of stacked denoising autoencoders: ``python -m benchmarks.stacked``.

784-1000-1000-1000-10, batch 100, sigmoids, a quarter of the input masked, SGD: the time of a step
in each stage of the training, against the same in plain PyTorch, and against the floor, the fastest
products of the step that torch has here with one fused SGD.
"""

import statistics
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import ratio
from benchmarks.peers.floor import product
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.models import StackedDenoisingAutoencoder
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.greedy import Greedy
from pyro_aevb.training.trainer import Trainer, seed_everything

BATCH, HIDDEN, CLASSES, RATE, LR = 100, (1000, 1000, 1000), 10, 0.25, 0.1
STAGES = {"first layer": 0, "second layer": 1, "fine-tuning": 3}
FLOOR, PLAIN, EAGER, COMPILED = "floor", "plain PyTorch", "project, eager", "project"
AIMS = {FLOOR: 0.8, PLAIN: 1.2}
r"""The share of the floor's speed, and the multiple of plain PyTorch's, that were set out for."""

Step = Callable[[Tensor], Any]


def data(count: int) -> Batches:
    images = torch.from_numpy(mnist()[0][:count]).view(count, 1, 28, 28)
    labels = torch.arange(count) % CLASSES
    return Batches(Split(images, labels, 255), "none", columns=["label"])


def project(train: Batches, number: int, compiled: bool) -> tuple[Step, Any]:
    r"""A step of a stage, and the context that it is to be run in."""
    seed_everything(0)
    net = StackedDenoisingAutoencoder(
        (1, 28, 28), CLASSES, HIDDEN, corruption_options={"rate": RATE}
    )
    pair = load_pair(net)
    inspect(pair, train.take(torch.arange(5)))
    how: Any = {"epochs": 100, "batch_size": BATCH, "optimizer": "sgd", "lr": LR}
    trainer = Trainer(pair, train, train.first(100), Greedy(pair, train, 1), **how)
    learners = trainer._build(number, 0)
    learners.keep()

    def step(index: Tensor) -> Any:
        with learners.pair.active(), WholeBatch(), pyro.validation_enabled(False):
            return learners.update(index)

    if compiled:
        with learners.pair.active(), WholeBatch(), pyro.validation_enabled(False):
            learners.compile(torch.arange(BATCH), print)
    return step, learners


def plain(train: Batches, number: int) -> Step:
    r"""The same stage as one would write it."""
    seed_everything(0)
    sizes = [784, *HIDDEN]
    layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    x = train.take(torch.arange(len(train))).x.flatten(1)
    if number < len(layers):
        with torch.no_grad():
            for layer in layers[:number]:
                x = layer(x).sigmoid()
        layer = layers[number]
        bias = nn.Parameter(torch.zeros(layer.in_features))
        parameters = [*layer.parameters(), bias]
    else:
        output = nn.Linear(sizes[-1], CLASSES)
        label = train.columns["label"]
        parameters = [p for one in (*layers, output) for p in one.parameters()]
    optimizer = torch.optim.SGD(parameters, LR)

    def step(index: Tensor) -> Tensor:
        clean = x[index]
        optimizer.zero_grad()
        if number < len(layers):
            uniform = torch.rand_like(clean)
            lowest = uniform.topk(round(RATE * clean.shape[1]), dim=1, largest=False).indices
            code = layer(clean.scatter(1, lowest, 0.0)).sigmoid()
            logits = F.linear(code, layer.weight.t(), bias)
            loss = F.binary_cross_entropy_with_logits(logits, clean, reduction="sum") / len(clean)
        else:
            h = clean
            for one in layers:
                h = one(h).sigmoid()
            loss = F.cross_entropy(output(h), label[index])
        loss.backward()
        optimizer.step()
        return loss

    return step


def floor(number: int) -> Step:
    r"""The products of the stage, each the fastest that torch has, and a fused SGD."""
    sizes = [784, *HIDDEN, CLASSES]
    if number < len(HIDDEN):
        visible, hidden = sizes[number], sizes[number + 1]
        shapes = [(visible, hidden, False), (hidden, visible, True)]
        weights = [(hidden, visible)]
    else:
        shapes = [(a, b, i > 0) for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))]
        weights = [(b, a) for a, b, _ in shapes]
    products = []
    for a, b, back in shapes:
        x, g, w = torch.randn(BATCH, a), torch.randn(BATCH, b), torch.randn(b, a)
        pairs = [(x, w.t()), (g.t(), x), *([(g, w)] if back else [])]
        products += [product(p, q, True) for p, q in pairs]
    parameters = [nn.Parameter(torch.randn(shape)) for shape in weights]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.SGD(parameters, LR, fused=True)

    def step(index: Tensor) -> None:
        with torch.no_grad():
            for multiplied in products:
                multiplied()
            optimizer.step()

    return step


def seconds(step: Step, batches: tuple[Tensor, ...]) -> float:
    import time

    began = time.perf_counter()
    for index in batches:
        step(index)
    return time.perf_counter() - began


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.stacked", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60, help="steps of a timed turn")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    train = data(BATCH * args.steps)
    batches = torch.randperm(len(train)).split(BATCH)
    found: dict[str, Any] = {}
    rows = []
    for title, number in STAGES.items():
        contenders = {
            FLOOR: floor(number),
            PLAIN: plain(train, number),
            EAGER: project(train, number, False)[0],
            COMPILED: project(train, number, True)[0],
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(args.rounds + 1):
            for name, step in contenders.items():
                spent = seconds(step, batches)
                if turn:  # the first does not count
                    taken[name].append(spent)
        found[title] = taken
        for name, values in taken.items():
            relative = ratio(values, taken[COMPILED])
            aim, reached = "", ""
            if name in AIMS:
                aim = f"≥ {AIMS[name]}"
                reached = "yes" if relative >= AIMS[name] else "**no**"
            each = report.spread(values, 1e3 / args.steps)
            rows.append([f"{title}: {name}", *each, f"{relative:.2f}", aim, reached])
    result = {
        "seconds": found,
        "steps": args.steps,
        **report.circumstances("benchmarks.stacked", "cpu"),
    }
    path = args.out / "stacked-cpu.json"
    report.merge(path, {"784-1000-1000-1000-10": result})
    columns = ("", "ms per step", "range", "in units of project", "aim", "reached")
    text = (
        "# What a step of a stacked denoising autoencoder costs, cpu\n\n784-1000-1000-1000-10, "
        f"batch {BATCH}, {args.rounds} rounds of {args.steps} steps, in turns in one process. "
        "Medians, and the median over rounds of the time in units of that of `project`, which is "
        "compiled. The *floor* is the products of the step alone, each by the fastest kernel that "
        "torch has here, and a fused SGD; *plain PyTorch* is the loop that one would write.\n\n"
        f"{report.table(columns, rows)}\n{report.circumstances_line(result)}\n"
    )
    path.with_suffix(".md").write_text(text)
    print(text)
    medians = {
        title: {name: 1e3 * statistics.median(v) / args.steps for name, v in taken.items()}
        for title, taken in found.items()
    }
    names = {name: name for name in (FLOOR, PLAIN, EAGER, COMPILED)}
    report.bars(path.with_suffix(".png"), medians, "milliseconds per step", names)


if __name__ == "__main__":
    main()
