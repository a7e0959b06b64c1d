r"""Describe a pair, or say what is wrong with it: ``python -m pyro_aevb.check --pair PAIR``.

Without a pair, find whether a device computes what the CPU computes.
"""

from typing import TYPE_CHECKING, Any, Literal

from pyro_aevb.keywords import with_known_keywords

if TYPE_CHECKING:
    from pyro_aevb.pairs.description import Description
    from pyro_aevb.reports.proof import Proven


@with_known_keywords
def check(
    pair: Any = None,
    data: Any = "mnist5k",
    pair_parameters: dict[str, Any] | None = None,
    data_root: str | None = None,
    binarize: Literal["none", "dynamic", "fixed"] | None = None,
    device: str = "auto",
    seed: int = 0,
    trust: bool = False,
    show: bool = True,
) -> "Description | list[Proven]":
    r"""Run a pair on a few data and describe it, or say what breaks the contract.

    Without a pair, train all families and objectives for a few steps on the CPU and on a device,
    and compare their losses, compiled steps with eager ones, and the speed of both, in about two
    minutes: what to run on a GPU first, and what a report of a fault should hold.

    Arguments:
        pair: A shipped name such as VAE, file.py:Name, file.py, or package.module:Name; default
            none, the device is tried.
        data: A data set's name, or a path to a file or folder of images; in Python whatever fit
            takes.
        pair_parameters: Parameters of the pair's constructor; as flags, --pair.NAME VALUE.
        data_root: Where data sets lie; default $PYRO_AEVB_DATA, else ~/.cache/pyro_aevb.
        binarize: none, dynamic or fixed; default the data set's own.
        device: auto (an accelerator where there is one), cpu, cuda, cuda:N or xpu.
        seed: The seed of the parameters' initial values.
        trust: Run the code that a file of settings (--config) names, wherever it comes from; what
            is named by a flag, or in Python, runs without it.
        show: Print the description.

    Returns:
        The description; without a pair, for each case how far the device is from the CPU.

    Raises:
        UsageError: The pair breaks the contract; or the device computes something else.
    """
    from rich.table import Table

    from pyro_aevb.errors import UsageError
    from pyro_aevb.pairs.locate import constructor, constructor_parameters, settable
    from pyro_aevb.reports.rehearsal import rehearse
    from pyro_aevb.reports.text import terminal
    from pyro_aevb.runs.prepare import prepare
    from pyro_aevb.training.trainer import seed_everything

    if pair is None:
        if data != "mnist5k" or pair_parameters or data_root or binarize or trust:
            raise UsageError(
                "without --pair the device is tried, on data of its own; add --pair VAE"
            )
        return _proof(device, show)
    seed_everything(seed)
    prepared = prepare(pair, data, pair_parameters, data_root, binarize, device)
    notes = rehearse(prepared)
    if not show:
        return prepared.description
    console, description = terminal(), prepared.description
    size = "the batch" if description.plate_size is None else f"{description.plate_size:,}"
    console.print(f"{prepared.pair.name} on {prepared.data.name}: {prepared.data.description}")
    console.print(f"data plate {description.plate!r} of size {size}")
    table = Table(show_edge=False)
    for column in ("site", "kind", "shape", "model", "guide"):
        table.add_column(column, overflow="fold")
    rows = [(s, "local latent") for s in description.local_sites]
    rows += [(s, "global latent") for s in description.global_sites]
    for site, kind in rows:
        note = kind + ", matched to its prior" * site.matched + ", no density" * (not site.density)
        table.add_row(site.name, note, str(site.event_shape), site.prior, site.posterior)
    event = str(description.event_shape)
    table.add_row(description.observed, "observed", event, description.likelihood, "")
    for name in description.also_observed:
        table.add_row(name, "observed", "", "", "")
    console.print(table)
    for name, shape in description.parameters.items():
        console.print(f"  {name} {shape}", highlight=False)
    console.print(f"{description.num_parameters:,} trainable parameters")
    learns = prepared.pair.algorithm or "svi"
    console.print(f"learns by {learns}, unless --algorithm says otherwise", highlight=False)
    reasons = (description.undefined(), description.weights_undefined())
    for reason in (*reasons, description.no_simulation()):
        if reason is not None:
            console.print(f"note: {reason}", highlight=False)
    for setting in ("algorithm", "beta", "corruption"):
        if (value := prepared.pair.attribute(setting)) is not None:
            console.print(f"trained with {setting} {value} by default", highlight=False)
    if (make := constructor(pair)) is not None and (names := settable(make)):
        parameters = [constructor_parameters(make)[name] for name in names]
        flags = [
            f"--pair.{p.name}" + ("" if p.default is p.empty else f" {p.default}")
            for p in parameters
        ]
        console.print(f"flags and their defaults: {', '.join(flags)}", highlight=False)
    for note in notes:
        print(note)
    return description


def _proof(device: str, show: bool) -> "list[Proven]":
    from pyro_aevb.device import choose_device
    from pyro_aevb.engine.bars import bar
    from pyro_aevb.errors import UsageError
    from pyro_aevb.reports.proof import CASES, as_text, prove, speeds

    chosen = str(choose_device(device))
    with bar(total=len(CASES), disable=not show, unit="case", desc=chosen) as progress:

        def say(case: str) -> None:
            progress.set_postfix_str(case)
            progress.update()

        found = prove(chosen, say=say)
    if show:
        print(as_text(found, speeds(chosen), choose_device(device)))
    if wrong := [row.case for row in found if not row.holds]:
        raise UsageError(f"{chosen} computes something else than the CPU: {', '.join(wrong)}")
    return found


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(check)
