r"""Score a run again, or otherwise: ``python -m pyro_aevb.evaluate RUN``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyro_aevb.data.naming import SPLITS, TEST
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.estimators import ESTIMATORS, IMPORTANCE
from pyro_aevb.keywords import with_known_keywords

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run


GROUPS = {
    "By what": ("estimator", "estimator_options", "num_samples", "weight_samples", "proposal"),
    "On what data": ("split", "num_data"),
    "On other input": ("corruption", "corruption_options", "num_noise", "against"),
    "What is shown": ("show", "verbose"),
    "Machine": ("seed", "device", "compile", "memory", "matmul_precision"),
    "What has moved": ("pair", "data", "data_root", "trust"),
}
r"""The titles of the command's flags."""


# Longer than a screen, as its parameters are the flags of the command.
@with_known_keywords
def evaluate(
    run: "str | Path | Run | Sequence[str]",
    estimator: Any = "importance",
    estimator_options: dict[str, Any] | None = None,
    num_samples: int | None = None,
    weight_samples: int | None = None,
    proposal: Literal["laplace", "guide", "prior"] | None = None,
    num_data: int | None = None,
    split: Literal["test", "valid", "train"] = "test",
    corruption: Any = None,
    corruption_options: dict[str, Any] | None = None,
    num_noise: int | None = None,
    against: str | None = None,
    memory: int | None = None,
    compile: Literal["auto", "on", "off"] = "auto",
    matmul_precision: Literal["highest", "high", "medium"] = "highest",
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    show: bool = True,
    verbose: bool = False,
    pair: Any = None,
    data: Any = None,
    trust: bool = False,
) -> dict[str, Any]:
    r"""Score a split with a run's trained pair, and merge what is found into its results.

    Arguments:
        run: The run's directory.
        estimator: importance, which makes results and figures anew, or one that adds to them:
            NAMES. In Python also an Estimator of your own.
        estimator_options: Its further settings, such as {num_samples: 1000}; those of importance
            are {monte_carlo_error: 0.1, max_samples: 5000}, of each datum's log_likelihood.
        num_samples: K, draws of the guide per datum, for elbo and iwae_bound; default 500. Samples
            of other estimators that draw some; default their own.
        weight_samples: S, draws of global latents; default 10, of other estimators 1.
        proposal: What log_likelihood draws latents from: laplace (default), normals fitted to each
            datum's posterior; guide, which makes it iwae_bound; or prior.
        num_data: Score only the first n data; results of more data are kept. Under a corruption and
            against other data default as many as the results of the split are of.
        split: Score another split than test: valid, to choose settings by, or train. Its results
            stand in the section splits of results.json, beside those of the test split.
        corruption: Score through a guide that sees the data corrupted, beside the clean data:
            masking, salt_and_pepper or gaussian. In Python also a function of a batch.
        corruption_options: Its arguments: {rate: 0.25, exact: true}, {std: 0.1, clip: true}.
        num_noise: Draws of the corruption; default 5.
        against: Score the test split of another data set too, and say how well scores tell it
            from the run's own; or noise.
        memory: Budget of scoring in MiB; changes speed only.
        compile: Capture what is run over and over and compile it: on, off, or auto, which decides
            by the work ahead and notes it if it cannot.
        matmul_precision: As for fit; the mean over data hardly moves, single data do.
        seed: Fixes the draws.
        device: auto (an accelerator where there is one), cpu, cuda, cuda:N or xpu.
        data_root: Where data sets lie; default the run's.
        show: Print progress and the table, or what was added to it.
        verbose: Print all that results.json holds.
        pair: In place of what the run's settings name, if its file has moved, or if the run was
            trained from a Python object: file.py:Name; in Python also the object.
        data: In place of what the run's settings name, if that has moved, or if the run was
            trained on a Python object: a name or a path; in Python also the object.
        trust: Run the code of the pair that the run's settings name, wherever it comes from. If
            the run was trained here, and the pair's file is what it was, it runs without.

    Returns:
        What ``results.json`` holds of the split, or of fewer data than that is of, what they gave;
        of several processes under torchrun, in the first.
    """
    from functools import partial

    from pyro_aevb.engine import rewrites
    from pyro_aevb.engine.processes import processes
    from pyro_aevb.estimators.importance import Scorer
    from pyro_aevb.estimators.work import Work
    from pyro_aevb.reports.assess import assess, to_score
    from pyro_aevb.reports.estimation import choose, estimate, find
    from pyro_aevb.reports.rescoring import (
        called,
        choose_corruption,
        score_against,
        score_corrupted,
    )
    from pyro_aevb.reports.text import show_added, show_results
    from pyro_aevb.runs.prepare import restore
    from pyro_aevb.runs.run import only_run

    if sum((estimator != IMPORTANCE, corruption is not None, against is not None)) > 1:
        raise UsageError(
            "--estimator, --corruption and --against are evaluations of their own; run evaluate "
            "once for each"
        )
    one_of("--split", split, SPLITS)
    other = find(estimator)
    reason = "" if other is None else other.of_test
    if against is not None:
        reason = "its test data are compared with those of the other set"
    if reason and split != TEST:
        what = "--against" if other is None else f"--estimator {other.name}"
        raise UsageError(f"{what} has no use for --split {split}: {reason}; leave it out")
    corrupt = choose_corruption(corruption, corruption_options, num_noise)
    num_noise = 5 if num_noise is None else num_noise
    drawn = {"num_samples": num_samples, "weight_samples": weight_samples}
    how = {"memory": memory, "compile": None if compile == "auto" else compile}
    settings = choose(other, estimator_options, seed=seed, proposal=proposal, **drawn, **how)
    with rewrites.matmul_precision(matmul_precision), processes(device) as group:
        opened = only_run(run).on(split)
        prepared = restore(opened, group.device, data_root, pair, data, trust, memory)
        budget = memory and memory << 20
        work = Work(group, show and group.rank == 0, budget, compile)
        k, s = (settings.get(name, 1) for name in drawn)
        seed = settings.get("seed", seed)
        whole = prepared.fixed_train if split == "train" else getattr(prepared, split)
        if num_data is None and other is not None and other.first is not None:
            num_data = min(other.first, len(whole))
        if num_data is None and (corrupt is not None or against is not None):
            # As many as stand beside them
            num_data = min(opened.current_results()["num_data"], len(whole))
        test = to_score(whole, k, s, num_data, memory)
        make = partial(Scorer, prepared.pair, k, s, seed, budget, compile=compile)
        if other is not None:
            results = estimate(opened, prepared, test, other, settings, work)
        elif corrupt is not None:
            results = score_corrupted(opened, prepared, make, test, corrupt, num_noise, work)
        elif against is not None:
            results = score_against(opened, prepared, make, test, against, data_root, work)
        else:
            results = assess(opened, prepared, test, settings, work)
        if work.show and (verbose or (other is None and corrupt is None and against is None)):
            show_results(results, verbose)
        elif work.show:
            show_added(
                results,
                estimator=None if other is None else other.name,
                corrupted=None if corrupt is None else called(corrupt),
                against=against,
            )
        return results


evaluate.__doc__ = (evaluate.__doc__ or "").replace("NAMES", ", ".join(ESTIMATORS))


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(evaluate, positional="run", groups=GROUPS)
