r"""A pair of two torch modules that were written, and perhaps trained, elsewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, finfo, nn

from pyro_aevb.errors import UsageError, above_zero, at_least_one, of_kind, one_line, one_of
from pyro_aevb.keywords import with_known_keywords

NORMALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_scale": lambda mean, scale: scale,
    "mean_variance": lambda mean, variance: variance.sqrt(),
    "mean_log_variance": lambda mean, log_variance: (log_variance / 2).exp(),
    "mean_log_scale": lambda mean, log_scale: log_scale.exp(),
}
r"""The standard deviation of a normal, by what is given of it."""


def _normal(given: str) -> Callable[[Tensor, Tensor], Any]:
    scale = NORMALS[given]
    return lambda mean, other: dist.Normal(mean, scale(mean, other))


def _negative_binomial(mean: Tensor, dispersion: Tensor) -> Any:
    logits = mean.clamp_min(finfo(mean.dtype).tiny).log() - dispersion.log()
    return dist.NegativeBinomial(dispersion, logits=logits)


def _bernoulli(**parameter: Tensor) -> Any:
    dist.Bernoulli(**parameter)  # its parameter is validated
    # Data are not, because a grey level is outside of the support {0, 1}.
    return dist.Bernoulli(**parameter, validate_args=False)


LIKELIHOODS: dict[str, dict[str, Callable[..., Any]]] = {
    "bernoulli": {
        "logits": lambda logits: _bernoulli(logits=logits),
        "probabilities": lambda probs: _bernoulli(probs=probs),
    },
    "gaussian": {"mean": dist.Normal, **{given: _normal(given) for given in NORMALS}},
    "poisson": {
        "rate": dist.Poisson,
        "log_rate": lambda log_rate: dist.Poisson(log_rate.exp()),
    },
    "negative_binomial": {
        "mean_dispersion": _negative_binomial,
        "total_count_logits": lambda count, logits: dist.NegativeBinomial(count, logits=logits),
    },
}
r"""By likelihood and by what the decoder gives, the distribution of data given its outputs."""


PARTS = {
    **{word: ["mean", word.removeprefix("mean_")] for word in NORMALS},
    "mean_dispersion": ["mean", "dispersion"],
    "total_count_logits": ["total_count", "logits"],
}
r"""The outputs that a word stands for, in order, where they are two."""
NAMES = {
    "mean": ("loc", "mu", "embedding", "reconstruction"),
    "scale": ("std", "sigma"),
    "variance": ("var",),
    "log_variance": ("log_var", "logvar", "log_covariance"),
    "log_scale": ("log_std", "log_sigma"),
    "probabilities": ("probs", "reconstruction"),
    "logits": ("reconstruction",),
}
r"""Other names that outputs have, such as those of pythae's nets."""


class TwoModules(nn.Module):
    r"""What :func:`pair` makes: its arguments, as a module with ``model`` and ``guide``.

    Latent site ``z``, observed site ``x``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        code: tuple[str, Callable[..., Any]],
        likelihood: tuple[str, Callable[..., Any]],
        code_shape: tuple[int, ...] | None,
        prior: Any,
        name: str,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior, self.name = encoder, decoder, prior, name
        self._code, self._likelihood, self._code_shape = code, likelihood, code_shape
        # What a net takes beyond its input is a column of the data, as of any model and guide.
        self.model = _Side(self._model, decoder)
        self.guide = _Side(self._guide, encoder)

    def _model(self, x: Tensor, **columns: Any) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self._prior(x))
            outputs = _tensors(self.decoder(z, **columns), *self._likelihood)
            px = _by_datum(_called(*self._likelihood, "decoder", outputs), len(x))
            pyro.sample("x", px, obs=_as(px, x))

    def _guide(self, x: Tensor, **columns: Any) -> None:
        outputs = _tensors(self.encoder(x, **columns), *self._code)
        q = _by_datum(_called(*self._code, "encoder", outputs), len(x))
        if self._code_shape not in (None, tuple(q.event_shape)):
            raise UsageError(
                f"the encoder gives codes of shape {tuple(q.event_shape)}; latent_dim says "
                f"{self._code_shape}"
            )
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", q)

    def _prior(self, x: Tensor) -> Any:
        if self.prior is None:
            zero = x.new_zeros(self._code_shape or ())
            return dist.Normal(zero, 1.0).to_event(zero.dim())
        known = isinstance(self.prior, TorchDistributionMixin) or not callable(self.prior)
        prior = _distribution("prior", self.prior if known else self.prior())
        return prior.to_event(len(prior.batch_shape))


@with_known_keywords
def pair(
    encoder: nn.Module,
    decoder: nn.Module,
    *,
    encoder_gives: str | Callable[..., Any],
    likelihood: str | Callable[..., Any],
    decoder_gives: str | None = None,
    latent_dim: int | Sequence[int] | None = None,
    prior: Any = None,
    scale: float | None = None,
    name: str = "elsewhere",
) -> TwoModules:
    r"""Make a pair of an encoder and a decoder, as they are: of a VAE that was trained elsewhere.

    The encoder is called as ``encoder(x)`` with a batch of data, ``(B, *event_shape)``, the decoder
    as ``decoder(z)`` with codes, ``(B, latent_dim)``. Each returns a tensor, a tuple of tensors in
    the order of the words, or names with tensors, which count by their names
    (:data:`~pyro_aevb.models.elsewhere.NAMES`); where one tensor is returned and two are needed,
    they are its halves along dimension 1. What the decoder gives may be flat where the data are
    not, ``(B, D)``. What their ``forward`` takes beyond the first argument are columns of the data
    of those names.

    Arguments:
        encoder: Gives the parameters of :math:`q(z|x)`.
        decoder: Gives the parameters of :math:`p(x|z)`.
        encoder_gives: What the encoder gives of a normal with independent components:
            ``"mean_scale"``, ``"mean_variance"``, ``"mean_log_variance"`` or ``"mean_log_scale"``;
            or a function of its outputs that returns a Pyro distribution of codes.
        likelihood: ``"bernoulli"``, ``"gaussian"``, ``"poisson"`` or ``"negative_binomial"``, with
            independent components; or a function of the decoder's outputs that returns a Pyro
            distribution of data.
        decoder_gives: What the decoder gives of it: of a Bernoulli ``"logits"`` or
            ``"probabilities"``; of a Gaussian ``"mean"``, or one of the four words of
            `encoder_gives`; of a Poisson ``"rate"`` or ``"log_rate"``; of a negative binomial
            ``"mean_dispersion"``, :math:`\mu` and :math:`\theta` with variance
            :math:`\mu + \mu^2/\theta`, or ``"total_count_logits"``. Not of a function.
        latent_dim: The size of a code, or its shape. Not needed with a `prior`.
        prior: A Pyro distribution of one code; or a module or function that returns one when it is
            called without arguments, whose parameters are the pair's. Default standard normal.
        scale: The standard deviation of a Gaussian whose decoder gives the mean alone.
        name: What to call the pair in results.

    Raises:
        UsageError: An argument that is no module, an unknown word, or one that is missing.
    """
    for side, net in (("encoder", encoder), ("decoder", decoder)):
        if not isinstance(net, nn.Module):
            raise UsageError(
                f"{side} is {_kind(net)}; give a torch module, whose tensors then go to the device "
                "and into the checkpoint"
            )
    if callable(encoder_gives):
        code: tuple[str, Callable[..., Any]] = "encoder_gives", encoder_gives
    else:
        one_of("encoder_gives", encoder_gives, NORMALS)
        code = f"encoder_gives={encoder_gives!r}", _normal(encoder_gives)
    if latent_dim is None and prior is None:
        raise UsageError("latent_dim is missing: the size of a code, for its standard normal prior")
    code_shape = (latent_dim,) if isinstance(latent_dim, int) else latent_dim
    for size in code_shape or ():
        at_least_one("latent_dim", size)
    said = "likelihood" if decoder_gives is None else f"decoder_gives={decoder_gives!r}"
    made = said, _made(likelihood, decoder_gives, scale)
    shape = None if code_shape is None else tuple(code_shape)
    return TwoModules(encoder, decoder, code, made, shape, prior, name)


def _made(
    likelihood: str | Callable[..., Any], decoder_gives: str | None, scale: float | None
) -> Callable[..., Any]:
    r"""The function of the decoder's outputs that gives the distribution of data."""
    fixed = likelihood == "gaussian" and decoder_gives == "mean"
    if callable(likelihood):
        if decoder_gives is not None:
            raise UsageError("decoder_gives is for a likelihood by name; leave it out")
        made = likelihood
    else:
        one_of("likelihood", likelihood, LIKELIHOODS)
        ways = LIKELIHOODS[likelihood]
        if decoder_gives is None:
            raise UsageError(f"decoder_gives is missing; of {likelihood} it is {_or(ways)}")
        one_of("decoder_gives", decoder_gives, ways)
        made = ways[decoder_gives]
    if scale is not None and not fixed:
        raise UsageError("scale is for a gaussian whose decoder gives the mean alone; leave it out")
    if not fixed:
        return made
    if scale is None:
        raise UsageError(
            "scale is missing, as the decoder gives the mean alone; a decoder trained on half the "
            "sum of squared errors, beside the KL in full, has scale=1"
        )
    of_kind("scale", scale, float)
    above_zero("scale", scale)
    return lambda mean: dist.Normal(mean, scale)


class _Side:
    r"""A side of the pair, with the parameters that a net's ``forward`` has after its first."""

    def __init__(self, run: Callable[..., None], net: nn.Module) -> None:
        self.run = run
        try:
            _, *others = inspect.signature(net.forward).parameters.values()
        except (TypeError, ValueError):  # of a scripted module
            others = []
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in others if p.kind in named]
        first = inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY)
        self.__signature__ = inspect.Signature([first, *kept])

    def __call__(self, x: Tensor, **columns: Any) -> None:
        self.run(x, **columns)


def _tensors(output: Any, option: str, function: Any) -> tuple[Any, ...]:
    r"""What a net gives, in the order in which a function takes it."""
    if isinstance(output, Mapping):
        parts = _parts(option, function)
        found = {part: _named(output, part) for part in parts}
        if parts and all(value is not None for value in found.values()):
            return tuple(found.values())
        if "=" in option and len(output) > 1:
            raise UsageError(
                f"a net gives {', '.join(map(str, output))}, and {option} is of "
                f"{', '.join(parts)}; call them so, or give a function of them by their names"
            )
        return tuple(output.values())
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)


def _parts(option: str, function: Any) -> list[str]:
    r"""What the outputs are called that a function takes, or the word that stands for it."""
    word = option.partition("=")[2].strip("'")
    if word:
        return PARTS.get(word, [word])
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _named(output: Mapping[Any, Any], part: str) -> Any:
    r"""The output of a name, or of another name for the same; None where there is none."""
    names = (part, *NAMES.get(part, ()))
    return next((output[name] for name in names if name in output), None)


def _called(option: str, function: Any, side: str, outputs: tuple[Any, ...]) -> Any:
    r"""The distribution that a function makes of a net's outputs."""
    needed = _count(function)
    if len(outputs) == 1 and needed == 2:
        if outputs[0].shape[1] % 2:
            raise UsageError(
                f"the {side} gives one tensor of shape {tuple(outputs[0].shape)}, and two are "
                "needed, which would be its halves along dimension 1"
            )
        outputs = outputs[0].chunk(2, 1)
    if needed is not None and len(outputs) != needed:
        raise UsageError(
            f"the {side} gives {len(outputs)} tensors, and {option} is of {needed}; give "
            f"{'encoder_gives' if side == 'encoder' else 'likelihood'} a function of all of them "
            "that returns a Pyro distribution"
        )
    try:
        made = function(*outputs)
    except ValueError as error:  # of Pyro's validation, which repeats all values
        found = re.search(r"parameter (\w+)", str(error))
        what = f"a {found[1]} is not finite or not in its range" if found else one_line(error)
        raise UsageError(f"{option} does not fit what the {side} gives: {what}") from error
    return _distribution(option, made)


def _count(function: Any) -> int | None:
    r"""How many outputs a function takes; None where it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)


def _distribution(option: str, made: Any) -> Any:
    if not isinstance(made, TorchDistributionMixin):
        raise UsageError(f"{option} gives {_kind(made)}; it has to be of pyro.distributions")
    return made


def _by_datum(made: Any, count: int) -> Any:
    r"""A distribution of a batch with all dimensions but the first in its event."""
    if made.batch_shape[:1] != (count,):
        raise UsageError(
            f"a {type(made).__name__} of batch shape {tuple(made.batch_shape)} and event shape "
            f"{tuple(made.event_shape)} is not of {count} data; the first dimension of its batch "
            "shape counts them"
        )
    return made.to_event(len(made.batch_shape) - 1)


def _as(px: Any, x: Tensor) -> Tensor:
    r"""Data in the shape of their distribution, which may be flat where they are not."""
    shape = px.batch_shape + px.event_shape
    if x.shape == shape:
        return x
    if x[0].numel() == shape[1:].numel() and 2 in (len(shape), x.dim()):
        return x.reshape(shape)
    raise UsageError(
        f"the decoder gives data of shape {tuple(shape[1:])}, and x has shape {tuple(x.shape[1:])}"
    )


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _or(words: Mapping[str, Any]) -> str:
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}"
