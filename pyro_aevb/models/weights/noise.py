r"""Weight noise for every datum, where a guide would draw one weight for the whole batch.

The bound of a pair with uncertain weights is a sum over data,

.. math::
    \mathcal{L} = \frac{N}{B} \sum_{n=1}^{B} \mathrm{E}_{q(W)}[\ell_n(W)]
    - \mathrm{KL}(q(W) \,\|\, p(W)),

so each datum may have its own draw :math:`W_n \sim q(W)`: the expectation stays, and the variance
that the common draw adds to all data alike goes. No :math:`W_n` is ever formed. The handlers here
draw what one weight does to the rows of a layer, exactly as :math:`W_n` would:

>>> with LocalReparameterization():
...     loss = TraceELBO().differentiable_loss(pair.model, pair.guide, x)

They act on latent sites that the guide draws, outside every plate, from a ``Normal`` (under any
number of event dimensions; ``AutoNormal`` included, see
:func:`~pyro_aevb.pairs.density.guide_sites`), when they arrive unchanged as the weight or bias of
``torch.nn.functional.linear`` or a convolution. Such a site is not drawn at all, unless something
else than a layer asks for its value: its sampled log-probability, if the objective has no closed
form for its Kullback-Leibler term (the estimate stays unbiased, as the bound is a sum of
expectations), or any other operation, which then sees one ordinary draw shared by all data, as
without a handler. Weights of any other guide are left to be shared, too.

What makes it exact:

- The objective is a sum over data of expectations, as the ELBO is. With K particles inside a
  logarithm (:class:`~pyro_aevb.training.objectives.iwae.IWAE`) independent weights for the
  particles of one datum would give another bound, and no bound on the evidence: use shared draws
  there.
- A weight is used once for each datum. Two layers with one weight, a layer applied twice, or a
  layer beside another operation raise an error, as their noise would have to agree.
- The leading dimension of what a layer is given is that of the data plate, or there is one row for
  all data. Where a layer sees several rows of each datum, ``(batch, rows, features)`` or the pixels
  of ``(batch, channels, height, width)``, these share one :math:`W_n`, by flipout: pixels with
  noise drawn independently would have the right marginals and the wrong joint distribution.
- No layer mixes data, as batch normalization does.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Delta, Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyro_aevb.errors import UsageError

Layer = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
r"""What a layer makes of its input, weight and bias."""
Drawn = tuple[Tensor | None, Any]
r"""A weight or bias at its mean, and the normal it is drawn from; None for what there is not."""

_LAYERS: dict[Any, int] = {
    functional.linear: 1,
    functional.conv1d: 2,
    functional.conv2d: 3,
    functional.conv3d: 4,
    functional.conv_transpose1d: 2,
    functional.conv_transpose2d: 3,
    functional.conv_transpose3d: 4,
}
r"""How many dimensions one row of input has, channels first. All take input, weight, bias first."""

_BLIND = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout")),
    *(getattr(Tensor, name) for name in ("dim", "size", "numel", "__len__", "is_floating_point")),
    torch.is_floating_point,
    torch.zeros_like,
    torch.ones_like,
}
r"""What does not look at a tensor's values. Anything missing here costs a draw, no correctness."""


class Flipout(Messenger):
    r"""Decorrelate the weight noise of the data by random signs.

    For :math:`W \sim \mathrm{N}(M, S^2)` and :math:`b \sim \mathrm{N}(m, s^2)` elementwise, datum
    n is given

    .. math::
        W_n = M + (S \odot \epsilon) \odot r_n s_n^\top, \qquad
        y_n = M h_n + m + r_n \odot \big((S \odot \epsilon)\, (s_n \odot h_n)\big)
        + s \odot \delta_n

    with one :math:`\epsilon \sim \mathrm{N}(0, I)` for the batch, signs :math:`r_n` and
    :math:`s_n`, one for each channel of output and input, and :math:`\delta_n \sim
    \mathrm{N}(0, I)`. As :math:`\epsilon` is symmetric, :math:`W_n \sim q(W)` for every datum,
    jointly for all its rows or pixels. The :math:`W_n` of different data are uncorrelated but not
    independent. A layer costs two products and a fresh :math:`\epsilon`.

    Valid as the module says. Enter it around the evaluation of an objective, once for each: guide,
    model and Kullback-Leibler terms.

    References:
        Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches
        (Wen, Vicol, Ba, Tran and Grosse, 2018)
        https://arxiv.org/abs/1803.04386
    """

    def __init__(self) -> None:
        super().__init__()
        self._layers = _Layers(self)
        self.rows: dict[str, int] = {}
        r"""How many rows each weight has met, until the observed site says how many data it has."""

    def __enter__(self) -> "Flipout":
        self.rows.clear()
        super().__enter__()
        self._layers.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._layers.__exit__(kind, error, traceback)
        super().__exit__(kind, error, traceback)
        if isinstance(error, UsageError):  # Pyro appends the shapes of all sites to what it sees
            error.args = (str(error).partition("\n")[0],)

    def layer(
        self, function: Layer, event_dim: int, input: Tensor, weight: Drawn, bias: Drawn
    ) -> Tensor:
        r"""The layer's output, ``(*batch, *event_shape)``, under noise of its own for each datum.

        Arguments:
            function: The layer, of its input, weight and bias.
            event_dim: The number of dimensions of one row of the input, channels first.
            input: The input of the layer.
            weight: The mean of the weight, and its normal if it is drawn.
            bias: The mean of the bias, and its normal if it is drawn.
        """
        output = function(input, weight[0], bias[0])
        if weight[1] is not None:
            shared = weight[1].scale * torch.randn_like(weight[1].scale)
            flipped = function(_signs(input, event_dim) * input, shared, None)
            output = output + _signs(flipped, event_dim) * flipped
        if bias[1] is not None:
            shape = _noise_shape(output, event_dim)
            noise = torch.randn(shape, dtype=output.dtype, device=output.device)
            output = output + noise * bias[1].scale.reshape(-1, *[1] * (event_dim - 1))
        return output

    def _pyro_sample(self, msg: Any) -> None:
        plates = any(frame.vectorized for frame in msg["cond_indep_stack"])
        done = msg["done"] or msg["is_observed"] or msg["value"] is not None
        if plates or done or msg["args"] or msg["kwargs"] or msg["continuation"] is not None:
            return
        fn = msg["fn"]
        if isinstance(fn, Delta):  # an autoguide's site, at the value of its auxiliary one
            draw = _draw(fn.v)
            if draw is not None:
                draw.name, msg["value"] = msg["name"], draw.recorded(fn.v)
                msg["fn"] = Delta(msg["value"], fn.log_density, fn.event_dim)
                msg["done"] = True
            return
        while isinstance(fn, Independent):
            fn = fn.base_dist
        if isinstance(fn, Normal):
            msg["value"], msg["done"] = _Draw(msg["name"], msg["fn"], fn).stand_in(), True

    def _pyro_post_sample(self, msg: Any) -> None:
        draw = _draw(msg["value"])
        if draw is not None:
            # Traces have recorded the value; model and guide get another one, whose uses count.
            msg["continuation"] = draw.hand_out
        if msg["is_observed"] and not msg["infer"].get("_deterministic"):
            sizes = [frame.size for frame in msg["cond_indep_stack"] if frame.vectorized]
            for name, rows in self.rows.items():
                if rows != 1 and rows not in sizes:
                    raise UsageError(
                        f"weight {name!r} meets {rows} rows for the {sizes or 'missing plate of'} "
                        f"data of site {msg['name']!r}: give its layer (batch, rows, features), "
                        "for the rows of a datum share its noise, or use --weight-noise shared"
                    )
            self.rows.clear()


class LocalReparameterization(Flipout):
    r"""Draw the pre-activations of a layer instead of its weights.

    For :math:`W \sim \mathrm{N}(M, S^2)` and :math:`b \sim \mathrm{N}(m, s^2)` elementwise, and an
    input :math:`h` of shape ``(batch, features)``, row by row and unit by unit independently,

    .. math::
        y_{nj} \sim \mathrm{N}\Big( \sum_i M_{ji} h_{ni} + m_j, \;
        \sum_i S_{ji}^2 h_{ni}^2 + s_j^2 \Big),

    which is the distribution of :math:`W_n h_n + b_n` with weights of its own for each datum. The
    part of a gradient's variance that weight noise adds then falls as 1/B with the batch. A layer
    costs two products and one random number for each output.

    A layer that sees several rows or pixels of each datum, which share its weights, is given
    :class:`Flipout`'s noise, which is exact there. Valid and used as that.

    References:
        Variational Dropout and the Local Reparameterization Trick
        (Kingma, Salimans and Welling, 2015)
        https://arxiv.org/abs/1506.02557
    """

    def layer(
        self, function: Layer, event_dim: int, input: Tensor, weight: Drawn, bias: Drawn
    ) -> Tensor:
        if event_dim > 1 or input.dim() > 2 or weight[1] is None:  # no linear layer, or many rows
            return super().layer(function, event_dim, input, weight, bias)
        loc = function(input, weight[0], bias[0])
        own = None if bias[1] is None else bias[1].variance
        variance = function(input.square(), weight[1].variance, own)
        # The root has no slope at 0, where a row is all zeros: there is no noise and no gradient.
        scale = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return loc + scale * torch.randn_like(scale)


class _Draw:
    r"""A normal weight that is drawn when somebody asks for its value, and only then.

    In its place go *stand-ins* of its shape, filled with NaN so that a use that escapes is seen.
    The one that traces record may be looked at freely. Those handed out to the model and the guide
    count how often a datum meets the weight.
    """

    def __init__(self, name: str, site: Any, normal: Any) -> None:
        self.name, self.site, self.normal = name, site, normal
        self.differentiable = torch.is_grad_enabled()
        self.value: Tensor | None = None
        self.use: str | None = None

    def stand_in(self) -> Tensor:
        loc = self.normal.loc
        tensor: Any = loc.new_full((), math.nan).expand(loc.shape)
        tensor.weight_draw, tensor.recorded = self, None
        return tensor

    @staticmethod
    def recorded(tensor: Any) -> Tensor:
        r"""The stand-in of the same draw that traces record."""
        return tensor if tensor.recorded is None else tensor.recorded

    def hand_out(self, msg: Any) -> None:
        tensor: Any = self.stand_in()
        tensor.recorded, msg["value"] = self.recorded(msg["value"]), tensor

    def used_by(self, use: str) -> None:
        r"""Note a use, by "a layer" or by "another operation".

        Raises:
            UsageError: The same weight would have to be drawn twice.
        """
        if self.use and "a layer" in (self.use, use):
            raise UsageError(
                f"weight {self.name!r} is used twice for each datum, by {self.use} and by {use}, "
                "whose noise would not agree; use --weight-noise shared"
            )
        self.use = use

    def drawn(self) -> Tensor:
        if self.value is None:
            with torch.set_grad_enabled(self.differentiable):
                self.value = self.site()
        return self.value


class _Layers(TorchFunctionMode):
    r"""Gives weights that are drawn nowhere to layers as normals, and to all else as values."""

    def __init__(self, handler: Flipout) -> None:
        super().__init__()
        self.handler = handler

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LAYERS:
            return self.layer(func, *args, **kwargs)
        if func in _BLIND:
            return func(*args, **kwargs)
        return func(*_drawn(args), **{key: _drawn(value) for key, value in kwargs.items()})

    def layer(
        self, function: Any, input: Any, weight: Any, bias: Any = None, *rest: Any, **options: Any
    ) -> Any:
        def apply(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Any:
            return function(input, weight, bias, *rest, **options)

        event_dim = _LAYERS[function]
        input, draws = _drawn(input), [_draw(weight), _draw(bias)]
        if draws == [None, None] or weight.dim() != event_dim + 1:
            return apply(input, _drawn(weight), _drawn(bias))
        for draw in filter(None, draws):
            draw.used_by("a layer")
            self.handler.rows[draw.name] = input.shape[0] if input.dim() > event_dim else 1
        own = [
            (value, None) if draw is None else (draw.normal.loc, draw.normal)
            for value, draw in zip((weight, bias), draws, strict=True)
        ]
        return self.handler.layer(apply, event_dim, input, *own)


def _draw(value: Any) -> _Draw | None:
    return getattr(value, "weight_draw", None) if isinstance(value, Tensor) else None


def _drawn(value: Any) -> Any:
    r"""The same with values for the stand-ins, in nested lists and tuples too."""
    draw: Any = _draw(value)
    if draw is not None:
        if value.recorded is not None:
            draw.used_by("another operation")
        return draw.drawn()
    if isinstance(value, (list, tuple)):
        drawn = [_drawn(item) for item in value]
        same = all(new is old for new, old in zip(drawn, value, strict=True))
        return value if same else type(value)(drawn)
    return value


def _noise_shape(rows: Tensor, event_dim: int) -> list[int]:
    r"""One number for each datum and channel: ``(batch, 1, ..., channels, 1, ...)``."""
    shape = [1] * rows.dim()
    shape[-event_dim] = rows.shape[-event_dim]
    if rows.dim() > event_dim:
        shape[0] = rows.shape[0]
    return shape


def _signs(rows: Tensor, event_dim: int) -> Tensor:
    shape = _noise_shape(rows, event_dim)
    return 1 - 2 * torch.randint(2, shape, dtype=rows.dtype, device=rows.device)
