r"""Train a pair, then say what it is worth: ``python -m pyro_aevb.fit``."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from pyro_aevb.keywords import of_python, with_known_keywords
from pyro_aevb.runs.settings import CALL, PLACES, SCORING

if TYPE_CHECKING:
    from pyro_aevb.run import Run

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def _with_stored_settings(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    r"""A call that resumes a run takes what it is not given from the run, as a command does."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        given = signature.bind(*args, **kwargs).arguments
        if given.get("resume") and given.get("out") is not None:
            kwargs.update(_stored_settings(given, list(signature.parameters)))
        return function(*args, **kwargs)

    return call


GROUPS = {
    "What is trained": ("pair", "pair_parameters", "trust"),
    "On what data": ("data", "data_root", "binarize"),
    "For how long": ("epochs", "stop_after", "resume", "patience"),
    "How it learns": (
        *("algorithm", "algorithm_options", "objective", "num_particles", "objective_options"),
        *("weight_noise", "beta", "kl_warm_up", "corruption", "corruption_options", "map_prior"),
    ),
    "With which steps": (
        *("batch_size", "drop_last", "lr", "optimizer", "optimizer_options", "schedule"),
        *("schedule_options", "clip_norm"),
    ),
    "How it is scored": ("num_samples", "weight_samples", "proposal", "num_data", "no_score"),
    "Where it goes": ("out", "tensorboard", "show", "verbose"),
    "Machine": ("seed", "device", "threads", "compile", "memory", "matmul_precision"),
}
r"""The titles of the command's flags."""


# Longer than a screen, as its parameters are the command's flags; the body calls and prints.
@with_known_keywords
@_with_stored_settings
def fit(
    pair: Any = "VAE",
    data: Any = "mnist5k",
    pair_parameters: dict[str, Any] | None = None,
    data_root: str | None = None,
    binarize: Literal["none", "dynamic", "fixed"] | None = None,
    epochs: int = 100,
    stop_after: int | None = None,
    batch_size: int = 100,
    drop_last: bool = False,
    lr: float = 1e-3,
    optimizer: str = "adam",
    optimizer_options: dict[str, Any] | None = None,
    schedule: str = "constant",
    schedule_options: dict[str, Any] | None = None,
    algorithm: str | None = None,
    algorithm_options: dict[str, Any] | None = None,
    objective: Any = "elbo",
    num_particles: int = 1,
    objective_options: dict[str, Any] | None = None,
    weight_noise: Literal["shared", "local", "flipout"] | None = None,
    beta: float | None = None,
    kl_warm_up: int = 0,
    corruption: Any = None,
    corruption_options: dict[str, Any] | None = None,
    map_prior: float | None = None,
    clip_norm: float | None = None,
    patience: int = 0,
    num_samples: int = 500,
    weight_samples: int = 10,
    proposal: Literal["laplace", "guide", "prior"] = "laplace",
    num_data: int | None = None,
    memory: int | None = None,
    matmul_precision: Literal["highest", "high", "medium"] = "highest",
    compile: Literal["auto", "on", "off"] = "auto",
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    out: str | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    trust: bool = False,
    show: bool = True,
    verbose: bool = False,
    no_score: bool = False,
    on_epoch: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
) -> "Run":
    r"""Check a pair, train it, score it on the test split and write the run.

    Arguments:
        pair: A shipped name such as VAE, file.py:Name, file.py, or package.module:Name; in
            Python also a class, an instance (whose parameters are trained further) or a tuple.
        data: A data set's name, or a path to a file or folder of images; in Python also arrays,
            tables and torch data sets (:func:`~pyro_aevb.data.own.of_object`).
        pair_parameters: Parameters of the pair's constructor; as flags, --pair.NAME VALUE.
        data_root: Where data sets lie; default $PYRO_AEVB_DATA, else ~/.cache/pyro_aevb.
        binarize: none, dynamic (anew at each look in training, once for scoring) or fixed;
            default the data set's own.
        epochs: Passes over the training data; 0 scores the pair as it stands.
        stop_after: Pause after so many of them in all, and score; --resume goes on as if the run
            had not paused.
        batch_size: Data per step, of all processes together where torchrun starts several.
        drop_last: Leave out the last batch of an epoch where it is smaller than the others.
        lr: Learning rate.
        optimizer: A class of torch.optim.
        optimizer_options: Its further arguments, such as {betas: [0.9, 0.999], eps: 1e-4}.
        schedule: constant, cosine, iwae, or a class of torch.optim.lr_scheduler.
        schedule_options: Its arguments.
        algorithm: How the pair learns: default the one that it names, else svi, which ascends an
            objective.
        algorithm_options: The algorithm's own, such as its phases' learning rates.
        objective: elbo, sampled_elbo, iwae, dreg, beta_tcvae, dip_vae, capacity, or the import path
            of a pyro.infer.ELBO subclass.
        num_particles: Draws per datum in training.
        objective_options: Its further arguments, such as {beta: 6.0} of beta_tcvae.
        weight_noise: How draws of weight sites reach the data: shared, one for the batch, or local
            (reparameterization) or flipout, with less variance in the gradients; default the
            pair's attribute weight_noise, else shared.
        beta: Weight of the latent KL in training; default the pair's attribute beta, else 1.
        kl_warm_up: Epochs over which that weight rises from 0 to beta, a little at each step.
        corruption: What the guide sees of the data in training: masking, salt_and_pepper, gaussian
            or none; default the pair's attribute corruption. In Python also a function of a batch.
        corruption_options: Its arguments: {rate: 0.25, exact: true}, {std: 0.1, clip: true}.
        map_prior: Standard deviation of a normal prior on all weights that are points.
        clip_norm: The largest norm of a step's gradients together; larger ones are scaled down.
        patience: Stop after so many epochs without a better validation value, and return to
            the best; 0 never stops.
        num_samples: K, draws of the guide per test datum in scoring, for elbo and iwae_bound.
        weight_samples: S, draws of global latents in scoring.
        proposal: What log_likelihood draws latents from: laplace, normals fitted to each datum's
            posterior, with as many draws as that needs; guide, which makes it iwae_bound; or prior.
        num_data: Score only the first n test data.
        memory: Budget of scoring in MiB, which changes its speed only; a larger array in a file
            stays there, and epochs visit it in shuffled blocks.
        matmul_precision: Precision of float32 products (torch.set_float32_matmul_precision).
        compile: Capture the training step and compile it: on, off, or auto, which does so for 5,000
            steps and more and says so if it cannot.
        seed: Fixes everything random.
        device: auto (an accelerator where there is one), cpu, cuda, cuda:N or xpu.
        threads: Threads of a CPU; default as many as torch has, or fewer where a short
            measurement finds them faster, as beside other work on the machine. A resumed run keeps
            its number; OMP_NUM_THREADS wins over what is measured or kept.
        out: The run's directory; default runs/PAIR-DATA.
        resume: Continue the run in --out; its settings hold where no flag, in Python no argument,
            is given.
        tensorboard: Log to the run's directory for TensorBoard too.
        trust: Run the code that a file of settings (--config, --resume) names, wherever it comes
            from; what is named by a flag, or in Python, runs without it.
        show: Print progress and the table.
        verbose: Print all that results.json holds.
        no_score: Train only; evaluate scores the run later.
        on_epoch: In Python, called after each epoch with the history so far, a list with a dict
            for each epoch; of several processes in the first. What it raises ends the training and
            goes through to the caller; the epoch is kept, and ``resume=True`` goes on from it.

    Returns:
        The run, with the trained pair and the data in memory.
    """
    pair, data = (str(x) if isinstance(x, PathLike) else x for x in (pair, data))
    settings = {name: value for name, value in locals().items() if name not in CALL}
    from contextlib import ExitStack
    from dataclasses import replace

    import torch

    from pyro_aevb.data.looks import looks
    from pyro_aevb.engine import rewrites
    from pyro_aevb.engine.processes import processes
    from pyro_aevb.errors import UsageError, at_least_one
    from pyro_aevb.estimators.work import Work
    from pyro_aevb.pairs.consent import remember
    from pyro_aevb.pairs.settle import settle
    from pyro_aevb.reports.assess import assess, to_score
    from pyro_aevb.reports.estimation import choose
    from pyro_aevb.reports.rehearsal import rehearse
    from pyro_aevb.reports.text import show_results
    from pyro_aevb.run import Run
    from pyro_aevb.runs.prepare import prepare
    from pyro_aevb.threads import given, restored
    from pyro_aevb.training.algorithm import make_algorithm
    from pyro_aevb.training.settings import chosen
    from pyro_aevb.training.trainer import Trainer, seed_everything

    if on_epoch is not None and not callable(on_epoch):
        raise UsageError(f"on_epoch is {on_epoch!r}; it takes a function of the history")
    scored = {"num_samples": num_samples, "weight_samples": weight_samples, "proposal": proposal}
    scored = choose(None, None, seed=seed, **scored)
    at_least_one("--threads", threads)
    with (
        restored() as all_threads,
        rewrites.matmul_precision(matmul_precision),
        processes(device) as group,
        ExitStack() as held,
    ):
        torch.set_num_threads(threads or all_threads)
        seed_everything(seed)
        prepared = prepare(pair, data, pair_parameters, data_root, binarize, group.device, memory)
        test = to_score(prepared.test, num_samples, weight_samples, num_data, memory)
        name = f"{prepared.pair.name}-{prepared.data.name}"
        run = Run(group.agree(lambda: Run.create(out, name, resume).path))
        group.continues = (
            f"; --resume --out {run.path} continues from the last checkpoint, in any number of "
            "processes"
        )
        show = show and group.rank == 0
        if tensorboard:
            _tensorboard_writer()
        known = {"looks": looks(prepared.data)}
        plain = _plain(settings, str(run.path), prepared.pair.name, prepared.data.name)
        if resume:
            group.agree(lambda: _refuse_other_settings(run, plain, prepared.pair.source, known))
        learning = make_algorithm(
            algorithm,
            prepared.pair,
            prepared.train,
            algorithm_options,
            objective=objective,
            num_particles=num_particles,
            objective_options=objective_options,
            weight_noise=weight_noise,
            corruption=corruption,
            corruption_options=corruption_options,
        )
        prepared = replace(prepared, notes=(*prepared.notes, *learning.notes))
        trainer = Trainer(
            prepared.pair,
            prepared.train,
            prepared.valid,
            learning,
            run.checkpoint,
            show=show,
            group=group,
            stop_after=stop_after,
            known=known,
            **chosen(settings),
        )
        fewer = False
        if epochs:
            trainer.try_objective()
            on_cpu = prepared.train.device.type == "cpu" and group.size == 1
            fresh = not (resume and run.checkpoint.is_file())
            if threads is None and fresh and on_cpu and not given():
                torch.set_num_threads(trainer.fastest_threads())
                fewer = torch.get_num_threads() < all_threads
            plain["threads"] = torch.get_num_threads() if on_cpu else None
            for note in rehearse(prepared):
                if show:
                    print(note)
        group.agree(lambda: held.enter_context(run.alone(resume)))
        if resume and group.agree(run.checkpoint.is_file):
            trainer.resume()
            # A kill may have come between the checkpoint and the history of its last epoch.
            group.agree(lambda: run.write_history(trainer.history))
        group.agree(lambda: run.write_settings(plain))
        remember("objective", objective)
        trainer.on_epoch = None if group.rank else _logger(run, tensorboard, on_epoch)
        if show:
            _announce(prepared, run, f" (faster than {all_threads} here now)" * fewer)
        before = len(run.history) if resume else -1
        trainer.run()
        notes = (*prepared.notes, *trainer.notes, *settle(prepared.pair, prepared.test, seed))
        prepared = replace(prepared, notes=notes, best_epoch=trainer.progress.best_epoch)
        run.held = prepared
        results = None
        try:
            if not no_score:
                work = Work(group, show, memory and memory << 20, compile)
                results = assess(run, prepared, test, scored, work, len(run.history) > before)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"the training is complete; python -m pyro_aevb.evaluate {run.path} scores it"
            ) from None
        if show and results is not None:
            show_results(results, verbose)
            print(f"\nrun {run.path}: results.json, results.nc, and in figures/:")
            for figure in sorted(run.figures.glob("*.png")):
                print(f"  {figure}")
        elif show:
            print(f"\nrun {run.path}: python -m pyro_aevb.evaluate {run.path} scores it")
        if show and len(trainer.history) == stop_after and stop_after < epochs:
            rest = f"--resume --out {run.path} goes on"
            print(f"paused after {stop_after} of {epochs} epochs; {rest}")
        return run


def _plain(settings: dict[str, Any], out: str, pair: str, data: str) -> dict[str, Any]:
    r"""Settings that YAML can hold; a file's path made absolute, a Python object by its name."""
    from pathlib import Path

    plain: dict[str, Any] = {**{k: _storable(v) for k, v in settings.items()}, "out": out}
    for name, value, title in (("pair", settings["pair"], pair), ("data", settings["data"], data)):
        if not isinstance(value, str):
            plain[name] = f"<{title}>"
            continue
        path, colon, attribute = value.partition(":")
        if Path(path).exists() and (path.endswith(".py") or name == "data"):
            plain[name] = str(Path(path).resolve()) + colon + attribute
    return plain


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _storable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(entry) for entry in value]
    value = of_python(value)
    return (
        value if isinstance(value, (str, int, float, type(None))) else f"<{type(value).__name__}>"
    )


def _stored_settings(given: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    r"""What a run's settings say of arguments that are not given.

    Raises:
        UsageError: That was a Python object, which a file cannot hold; or code that nobody here
            has agreed to run.
    """
    from pyro_aevb.errors import UsageError
    from pyro_aevb.pairs.consent import require
    from pyro_aevb.runs.directories import SETTINGS
    from pyro_aevb.runs.run import Run
    from pyro_aevb.threads import given as environment_wins

    run = Run(given["out"])
    if not (run.path / SETTINGS).is_file():
        return {}
    kept = {"threads"} if environment_wins() else set()
    wanted = [name for name in names if name not in {*given, *CALL, *kept}]
    stored = {name: value for name, value in run.settings.items() if name in wanted}
    for name, value in stored.items():
        if str(value).startswith("<"):
            raise UsageError(
                f"{run.path} was trained with the Python object {value} as {name}; give it again: "
                f"pyro_aevb.fit({name}=..., out={str(run.path)!r}, resume=True)"
            )
    for kind in ("pair", "objective"):
        if kind in stored:
            require(kind, stored[kind], run.path / SETTINGS, bool(given.get("trust")))
    return stored


def _refuse_other_settings(
    run: "Run", settings: dict[str, Any], source: str | None, known: Mapping[str, Any]
) -> None:
    r"""Refuse what would make the record false; a pair's file and data may lie elsewhere now.

    Arguments:
        run: The run that is resumed.
        settings: Those of the call.
        source: The hash of the file that the pair is from now.
        known: What is known of the data now.
    """
    from pyro_aevb.data.looks import alike
    from pyro_aevb.errors import UsageError
    from pyro_aevb.pairs.locate import split_source
    from pyro_aevb.runs.checkpoint import load_checkpoint

    before, state = run.settings, {}
    if run.checkpoint.is_file():
        state = load_checkpoint(run.checkpoint)
    same = {"data"} if "looks" in state and alike(state["looks"], known["looks"]) else set()
    if "looks" in state and not same and before["data"] == settings["data"]:
        raise UsageError(
            f"--resume continues {run.path} with its own data, and these are others; give those "
            "that it was trained on, or start a new run"
        )
    names = [split_source(str(found["pair"]))[1] for found in (before, settings)]
    if source is not None and state.get("source") == source and names[0] == names[1]:
        same.add("pair")
    for name, value in settings.items():
        if name in {"epochs", *SCORING, *PLACES, *same} or name not in before:
            continue  # of any other setting the record would be false
        # No options, and options of which there are none, are the same; 0 and None are not.
        one, other = (None if v == {} else v for v in (before[name], value))
        # An earlier version kept of NumPy's numbers what they are called alone.
        if str(one) in ("<int64>", "<float32>", "<float64>", "<bool>") and not isinstance(
            other, str
        ):
            continue
        if one != other:
            raise UsageError(
                f"--resume continues {run.path} with its own settings: {name} is {before[name]!r} "
                f"there and {value!r} here; leave it out, or start a new run"
            )
    done = len(run.history)
    if settings["epochs"] < done:
        raise UsageError(f"--epochs is {settings['epochs']}, but {run.path} has {done} already")


def _tensorboard_writer() -> Any:
    from pyro_aevb.errors import UsageError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs the tensorboard package: pip install 'pyro_aevb[tensorboard]'"
        ) from error
    return SummaryWriter


def _logger(run: "Run", tensorboard: bool, on_epoch: Callable[[Any], None] | None) -> Any:
    writer = _tensorboard_writer()(run.path / "tensorboard") if tensorboard else None

    def log(history: Any) -> None:
        run.write_history(history)
        if writer is not None:
            for name, value in history[-1].items():
                if value is not None and name != "epoch":
                    writer.add_scalar(name, value, int(history[-1]["epoch"]))
            writer.flush()
        if on_epoch is not None:
            on_epoch([dict(row) for row in history])

    return log


def _announce(prepared: Any, run: "Run", why: str) -> None:
    import torch

    description, where = prepared.description, str(prepared.train.device)
    if where == "cpu":
        number = torch.get_num_threads()
        where += f", {number} thread{'s' * (number > 1)}{why}"
    print(
        f"{prepared.pair.name}: {description.num_parameters:,} parameters; "
        f"{prepared.data.description}; binarization {prepared.binarize}; "
        f"device {where}; run {run.path}"
    )


def _settings_of_run(arguments: dict[str, Any]) -> str | None:
    from pyro_aevb.runs.directories import SETTINGS
    from pyro_aevb.runs.run import Run

    if not arguments["resume"] or arguments["out"] is None:
        return None
    run = Run(arguments["out"])
    path = run.path / SETTINGS
    return str(path) if path.is_file() and run.settings else None


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(fit, hidden=("on_epoch",), resume_from=_settings_of_run, groups=GROUPS)
