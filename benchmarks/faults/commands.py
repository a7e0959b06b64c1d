r"""Commands put together at random, right and wrong: each succeeds, or says in one line why not.

Flags are those of each command's signature; values are drawn from right ones, ones of another
kind, and ones that nobody expects. What is trained is small, so that right ones end soon.
"""

import inspect
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from benchmarks.faults import runs
from benchmarks.faults.child import Outcome, command, run
from benchmarks.faults.report import Failure

POSITIONAL = {
    "pyro_aevb.fit": (),
    "pyro_aevb.evaluate": ("one",),
    "pyro_aevb.compare": ("one", "two"),
    "pyro_aevb.check": (),
    "pyro_aevb.report": ("one",),
}
BASE: Mapping[str, tuple[str, ...]] = {
    "pyro_aevb.fit": (*runs.SMALL, *runs.FEW, *runs.SCORED, "--epochs", "1", "--out", "new"),
    "pyro_aevb.evaluate": runs.SCORED,
    "pyro_aevb.compare": (),
    "pyro_aevb.check": ("--pair", "VAE", "--data", "digits:60", *runs.SMALL),
    "pyro_aevb.report": (),
}
VALUES = (
    *"1 2 0 -1 3.5 1e-3 nan inf -inf 1e400 99999999999999999999 true false none null None".split(),
    *"'' auto on off VAE digits digits:5 digits:99999999999999999999 digits:٣".split(),
    *"digits:-3 ~nobody/x ../../up.npy one two / . /dev/null /proc/self/mem new/deep/er".split(),
    *"ü [1,2] [] {} [[[ {{{ !!python/name:os.system *a &a masking gaussian adam sgd svi".split(),
    *"wake_sleep iwae".split(),
    *"elbo valid train os:system os.system importance ais gap laplace guide prior cpu cuda".split(),
    *"<b>x</b> =1+1 %s {0} $HOME `id` - -- ---".split(),
    *("", " ", "a\nb", "\udcff", "{a: 1}", "{rate: 0.5}", "x" * 5000),
)
r"""What a flag may be given."""
OF_KIND: Mapping[str, tuple[str, ...]] = {
    "int": ("1", "2", "3", "0", "-1", "7"),
    "float": ("0.1", "1", "0", "-1", "1e-3", "1e3", "inf", "nan"),
    "bool": ("true", "false"),
    "dict": ("{rate: 0.5}", "{}", "{latent_dim: 2}", "{num_chains: 2}", "{momentum: 0.9}"),
}
r"""Values of the kind that a signature states, beside the words of a Literal."""
FLAGS = ("--pair.latent-dim", "--pair.nothing", "--pair.", "--", "--config", "--help", "--no-such")
SECONDS = 60.0


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Run commands; yields what is wrong after each, or None.

    Arguments:
        number: How many.
        seed: Fixes them.
        where: A folder to work in.
    """
    for name, at in (("one", "1"), ("two", "2")):
        runs.made(runs.fit("SVI", f"kept/{name}", True, "--seed", at), where)
    rng = random.Random(seed)
    for _ in range(number):
        words = _drawn(rng)
        folder = where / "commands"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(where / "kept", folder)
        environment = {"HOME": str(folder), "PYRO_AEVB_TRUSTED": str(folder / "trusted")}
        outcome = run(command(words), folder, memory=4096, seconds=SECONDS, env=environment)
        yield _judged(words, outcome)


def _judged(words: list[str], outcome: Outcome) -> Failure | None:
    what = " ".join(word if len(word) < 60 else word[:60] + "…" for word in words)
    if outcome.status is None:
        return Failure(what, f"not over after {SECONDS:.0f} s")
    return None if outcome.tidy else Failure(what, outcome.said())


def _named(flag: str) -> str:
    return flag[2:].replace("-", "_")


def _of_kind(annotation: str) -> tuple[str, ...]:
    words = re.findall(r"'(\w+)'", annotation) if "Literal" in annotation else []
    kinds = [values for kind, values in OF_KIND.items() if re.search(rf"\b{kind}\b", annotation)]
    return tuple(words) + sum(kinds, ())


def _drawn(rng: random.Random) -> list[str]:
    name = rng.choice([*POSITIONAL])
    module = import_module(name)
    function = getattr(module, name.rpartition(".")[2])
    parameters = inspect.signature(function).parameters
    flags = [f"--{p.replace('_', '-')}" for p in parameters]
    words = [name, *POSITIONAL[name], *BASE[name]]
    for _ in range(rng.choice((1, 1, 2, 3))):
        flag = rng.choice(flags if rng.random() < 0.85 else FLAGS)
        right = _of_kind(str(parameters[n].annotation)) if (n := _named(flag)) in parameters else ()
        value = rng.choice(right if right and rng.random() < 0.6 else VALUES)
        words += [flag, value] if rng.random() < 0.9 else [flag]
    if len(words) > 1 and rng.random() < 0.2:
        words.pop(rng.randrange(len(words) - 1) + 1)
    if rng.random() < 0.1:
        words.append(rng.choice(VALUES))
    return [word.replace("\0", "") for word in words]
