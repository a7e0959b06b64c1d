r"""Whether one site of a pair has a density at its value, of each datum by itself."""

from typing import Any

import torch
from torch.distributions import Independent

from pyro_aevb.errors import one_line
from pyro_aevb.pairs.density import family, is_delta
from pyro_aevb.pairs.one_run import OneRun
from pyro_aevb.pairs.supports import outside


def check_log_prob(run: OneRun, side: str, site: dict[str, Any]) -> None:
    name, fn = site["name"], site["fn"]
    plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    for dim, size in enumerate(reversed(fn.batch_shape), 1):
        if size != 1 and -dim not in plates:
            raise run.wrong(
                f"{side} site {name!r} has batch shape {tuple(fn.batch_shape)} in "
                f"{len(plates)} plate(s): dim {-dim} belongs to no plate; declare the dims of "
                "one datum with .to_event(n)"
            )
    try:
        log_prob = fn.log_prob(site["value"])
    except ValueError as error:
        said = f"{side} site {name!r}: {one_line(error)}"
        raise run.wrong(outside(side, site) if "support" in str(error) else said) from error
    except Exception as error:  # of a distribution that draws alone, or scores its own draws alone
        said = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
        raise run.wrong(
            f"{side} site {name!r} has no log-probability at the value {_whose(side, site)}: "
            f"{said}; take a distribution with a density there (of a flow, one with an inverse, as "
            "affine_autoregressive or spline has)"
        ) from error
    finite = bool(torch.isfinite(log_prob).all())
    if not finite and side == "model" and is_delta(fn):
        raise run.wrong(
            f"model site {name!r} is a Delta, a point, and its value is another; give it a spread, "
            "as Normal(value, scale), or where it is no random number use pyro.deterministic"
        )
    if not finite and _at_edge(site):
        raise run.wrong(
            f"the log-probability of {side} site {name!r} is not finite at the edge of its "
            f"support, where a draw or a datum of {family(fn)} was rounded to; keep values inside, "
            "by other parameters or a transform"
        )
    if not finite:
        remedy = "look at its distribution's parameters and at the scale of the data"
        if bool(run.x.isnan().any()):
            remedy = "x has missing values (NaN): give nets x.nan_to_num(), beside x.isnan()"
        raise run.wrong(f"the log-probability of {side} site {name!r} is not finite; {remedy}")


def _at_edge(site: dict[str, Any]) -> bool:
    r"""Whether a value, at which there is no finite density, is 0 or 1, where a support ends."""
    value, support = site["value"], getattr(site["fn"], "support", None)
    inner = getattr(support, "base_constraint", support)
    ends = [getattr(inner, name, None) for name in ("lower_bound", "upper_bound")]
    known = [end for end in ends if isinstance(end, (int, float))]
    return any(bool((value == end).any()) for end in known)


def _whose(side: str, site: dict[str, Any]) -> str:
    if site["is_observed"]:
        return "that it observes"
    return "that the guide draws" if side == "model" else "that it draws"


def check_shape(run: OneRun, side: str, site: dict[str, Any]) -> None:
    r"""A value and its distribution that broadcast give numbers, of other data or pixels."""
    fn, shape, expected = site["fn"], tuple(site["value"].shape), tuple(site["fn"].shape())
    same = fn.log_prob(site["value"]).shape == fn.batch_shape
    # Some families, such as a homogeneous hidden Markov model, take events of any length.
    if same and (shape == expected or not isinstance(fn, Independent)):
        return
    raise run.wrong(
        f"the value of {side} site {site['name']!r} has shape {shape}, its distribution "
        f"{expected}: they broadcast, which mixes data or pixels; give both one shape (a "
        "decoder that ends in nn.Unflatten, or x.flatten(1)), and .to_event(its dims)"
    )
