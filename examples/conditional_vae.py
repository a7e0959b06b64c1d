r"""A pair that sees labels: digits of a class that is asked for.

A parameter of `model` and `guide` beyond `x` is a column of the data set of that name; `label` are
its labels. Every number is then conditional: the bound, and the log-likelihood, of log p(x|label).

    python -m pyro_aevb.fit --pair examples/conditional_vae.py:ConditionalVAE --data digits
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn


class ConditionalVAE(nn.Module):
    r"""p(x|label) with a code z that is independent of the label (Sohn, Lee and Yan, 2015)."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        classes: int = 10,
        latent_dim: int = 8,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent_dim = event_shape, latent_dim
        self.register_buffer("one_hot", torch.eye(classes))
        pixels = torch.Size(event_shape).numel()
        self.encoder = nn.Sequential(
            nn.Linear(pixels + classes, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim + classes, hidden), nn.Tanh(), nn.Linear(hidden, pixels)
        )

    def beside(self, values: Tensor, label: Tensor) -> Tensor:
        # A row of a matrix, which can be compiled; functional.one_hot reads the labels back.
        return torch.cat([values.flatten(1), self.one_hot[label]], 1)

    def model(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), self.latent_dim), 1.0)
            z = pyro.sample("z", prior.to_event(1))
            logits = self.decoder(self.beside(z, label)).view(len(x), *self.event_shape)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(len(self.event_shape)), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        loc, log_variance = self.encoder(self.beside(x, label)).chunk(2, 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))
