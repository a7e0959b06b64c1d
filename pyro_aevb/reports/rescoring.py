r"""Score a pair on other input than its test data: corrupted, or another data set's."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.corruption import Corruption, make_corruption
from pyro_aevb.data.sets import load
from pyro_aevb.data.split import Split
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators.corrupted import robustness
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.other_data import scores_of, separation
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.settle import settle
from pyro_aevb.pairs.supports import check_support
from pyro_aevb.reports import plots
from pyro_aevb.reports.figures import drawn, noted
from pyro_aevb.runs.prepare import Prepared, check_told
from pyro_aevb.runs.run import Run

NOISE = "noise"


def choose_corruption(
    corruption: Any, options: Mapping[str, Any] | None, num_noise: int | None
) -> Corruption | None:
    r"""The corruption to score under, or None if none is asked for.

    Raises:
        UsageError: No such corruption, options that it does not take, or no draw of it.
    """
    corrupt = make_corruption(corruption, options)
    if corruption is not None and corrupt is None:
        raise UsageError("--corruption none is what evaluate does without it; leave it out")
    if num_noise is not None and corrupt is None:
        raise UsageError("--num-noise counts draws of a corruption: give --corruption too")
    at_least_one("--num-noise", num_noise)
    return corrupt


def score_corrupted(
    run: Run,
    prepared: Prepared,
    make: Callable[..., Scorer],
    test: Batches,
    corruption: Corruption,
    num_noise: int,
    work: Work,
) -> dict[str, Any]:
    r"""Score data through a guide that sees them corrupted, beside one that does not.

    Adds to the section ``corrupted`` of the results an entry with the counts, and ``metrics`` by
    :func:`~pyro_aevb.estimators.corrupted.robustness`.

    Arguments:
        run: The run, which has results.
        prepared: Its pair and data.
        make: Makes a scorer, given a corruption.
        test: The data.
        corruption: Makes a corrupted batch from a batch.
        num_noise: The number of draws of the corruption.
        work: The processes that do the work.

    Returns:
        What ``results.json`` holds now; nothing in other processes than the first.
    """
    _check_more(run, "corrupted", called(corruption), test)
    if not prepared.description.observes_x:
        raise UsageError(
            f"--corruption reaches the guide alone, and {prepared.pair.name} reads x in its model: "
            "corrupt the data themselves, as a file of your own, to score it on them"
        )
    scorer = make(corruption=corruption, calls=1 + num_noise)
    if prepared.pair.tables:
        raise UsageError(
            f"--corruption is what the guide sees of the data, and that of {prepared.pair.name} "
            "sees none: it has parameters of each datum"
        )
    clean = work.score("scoring clean data", scorer, test)
    draws = [
        work.score(f"scoring corrupted data {i + 1} of {num_noise}", scorer, test, noise=i)
        for i in range(num_noise)
    ]
    known = [scores for scores in draws if scores is not None]
    if clean is None:
        return {}
    metrics = robustness(known, clean, prepared.description.undefined())
    entry = {**_counts(scorer, test), "num_noise": num_noise, "metrics": metrics}
    return run.add_section("corrupted", called(corruption), entry)


def called(corruption: Corruption) -> str:
    r"""What the section ``corrupted`` calls a corruption."""
    return str(getattr(corruption, "__name__", None) or repr(corruption))


def score_against(
    run: Run,
    prepared: Prepared,
    make: Callable[..., Scorer],
    test: Batches,
    against: str,
    data_root: str | None,
    work: Work,
) -> dict[str, Any]:
    r"""How well scores tell other data from those like the training data.

    Adds to the section ``against`` of the results an entry with the counts, and ``metrics`` by
    :func:`~pyro_aevb.estimators.other_data.separation`, and draws a figure.

    Arguments:
        run: The run, which has results.
        prepared: Its pair and data.
        make: Makes a scorer.
        test: The test data.
        against: The name of the other data, see :func:`other_data`.
        data_root: Where data sets lie.
        work: The processes that do the work.

    Returns:
        What ``results.json`` holds now; nothing in other processes than the first.
    """
    _check_more(run, "against", against, test)
    other = other_data(prepared, against, data_root)
    other = other.first(min(len(other), len(test)))
    check_support(prepared.pair, other, f"{against}, test")
    scorer = make(calls=2)
    ours = work.score("scoring test data", scorer, test)
    theirs = work.score(f"scoring {against}", scorer, other)
    if ours is None or theirs is None:
        return {}
    description = prepared.description
    reason = "needs more than one draw of the weights (--weight-samples)"
    if not description.global_sites:
        reason = description.weights_undefined() or reason
    metrics = separation(ours, theirs, reason)
    shown = "iwae_bound" if "iwae_bound" in metrics else "reconstruction"
    file = "".join(c if c.isalnum() or c in "._-" else "-" for c in f"against-{against}.png")
    entry = {**_counts(scorer, test), "num_others": len(other), "metrics": metrics}
    run.add_section("against", against, entry)
    undrawn: list[str] = []
    with drawn(file, undrawn, run):
        names, area = (prepared.data.name, against), metrics[shown]["value"]
        values = scores_of(ours)[shown], scores_of(theirs)[shown]
        plots.against(names, values, shown, area, run.figures / file)
    return noted(run, undrawn)


def other_data(prepared: Prepared, name: str, data_root: str | None = None) -> Batches:
    r"""The test split of another data set, presented as the pair's own.

    Arguments:
        prepared: A pair and its data.
        name: A data set's name or path, or ``noise``: as many data as the test split has, their
            components independent and uniform between the least and the largest of the training
            data, always the same.
        data_root: Where data sets lie.

    Raises:
        UsageError: No such data, or of another shape than the pair's.
    """
    own = prepared.data
    if name == NOISE:
        with seeded(torch.device("cpu"), 0):
            uniform = torch.rand(len(own.test), *own.event_shape, dtype=torch.float64)
        low, high = (end * own.train.scale for end in own.train.range())
        if own.train.images.is_floating_point():
            images = low + (high - low) * uniform
        else:
            images = (low + (high - low + 1) * uniform).floor()
        images = images.to(own.train.images.dtype)
        split = Split(images, None, own.train.scale, own.test.columns)
    else:
        data = load(name, data_root)
        split = data.test
        if data.event_shape != own.event_shape:
            raise UsageError(
                f"--against {name}: its data have shape {data.event_shape}, those of {own.name} "
                f"{own.event_shape}; name a set of the same shape"
            )
    columns = prepared.pair.columns_in(split)
    batches = Batches(split, prepared.test.binarize, prepared.test.device, columns)
    check_told(prepared.pair, batches, name)
    settle(prepared.pair, batches)
    return batches


def _check_more(run: Run, section: str, name: str, test: Batches) -> None:
    r"""A UsageError where an entry of more data would be replaced by one of fewer."""
    known = run.current_results().get(section, {}).get(name, {}).get("num_data", 0)
    if known > len(test):
        raise UsageError(
            f"{run.path} has {section} results of {known:,} data for {name}, and --num-data "
            f"{len(test)} would replace them: leave --num-data out"
        )


def _counts(scorer: Scorer, test: Batches) -> dict[str, int]:
    counts = {"num_samples": scorer.num_samples, "weight_samples": scorer.weight_samples}
    return {**counts, "num_data": len(test), "seed": scorer.seed}
