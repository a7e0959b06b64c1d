r"""NumPyro as in its VAE example: the whole epoch is one jitted loop.

References:
    https://github.com/pyro-ppl/numpyro/blob/master/examples/vae.py
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from jax.example_libraries import stax
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState

from benchmarks.networks import PIXELS, Network
from benchmarks.noise import signs
from benchmarks.peers import Unavailable, Values


def _net(*widths: int) -> Any:
    layers: list[Any] = []
    for width in widths:
        layers += [stax.Dense(width), stax.Tanh]
    return stax.serial(*layers[:-1])


class Example:
    def __init__(self, network: Network, images: np.ndarray, device: str) -> None:
        try:
            jax.config.update(
                "jax_default_device", jax.devices("gpu" if device != "cpu" else "cpu")[0]
            )
        except RuntimeError as error:
            raise Unavailable("the installed jax sees no GPU") from error
        self.batch = network.batch
        self.images = jnp.asarray(images.reshape(-1, PIXELS), jnp.float32) / 255
        self.steps = len(images) // network.batch
        encoder = _net(*network.hidden, 2 * network.latent)
        decoder = _net(*reversed(network.hidden), PIXELS)

        def model(x: Any) -> None:
            decode = numpyro.module("decoder", decoder, (self.batch, network.latent))
            with numpyro.plate("batch", len(x)):
                z = numpyro.sample("z", dist.Normal(0, 1).expand([network.latent]).to_event(1))
                numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

        def guide(x: Any) -> None:
            encode = numpyro.module("encoder", encoder, (self.batch, PIXELS))
            loc, log_variance = jnp.split(encode(x), 2, -1)
            with numpyro.plate("batch", len(x)):
                numpyro.sample("z", dist.Normal(loc, jnp.exp(0.5 * log_variance)).to_event(1))

        self.svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
        self.key, key = random.split(random.PRNGKey(0))
        self.state = self.svi.init(key, self.images[: self.batch])
        self.run = jax.jit(self._run)

    def _run(self, state: Any, key: Any, images: Any) -> Any:
        order_key, binarize_key = random.split(key)
        order = random.permutation(order_key, len(images))

        def body(i: Any, carry: Any) -> Any:
            total, state = carry
            index = lax.dynamic_slice_in_dim(order, i * self.batch, self.batch)
            grey = jnp.take(images, index, axis=0)
            x = random.bernoulli(random.fold_in(binarize_key, i), grey).astype(jnp.float32)
            state, loss = self.svi.update(state, x)
            return total + loss, state

        return lax.fori_loop(0, self.steps, body, (0.0, state))

    def epoch(self) -> None:
        self.key, key = random.split(self.key)
        total, self.state = self.run(self.state, key, self.images)
        total.block_until_ready()

    def parameters(self) -> Values:
        nets = self.svi.get_params(self.state)
        layers = [layer for net in ("encoder", "decoder") for layer in nets[f"{net}$params"]]
        return [np.asarray(a).T for layer in layers for a in layer]

    def load(self, values: Values) -> None:
        left = iter(values)
        # A dense layer of stax has an (in, out) weight and a bias, an activation nothing.
        params = {
            name: [tuple(jnp.asarray(next(left).T) for _ in layer) for layer in net]
            for name, net in sorted(self.svi.get_params(self.state).items(), reverse=True)
        }
        self.state = SVIState(self.svi.optim.init(params), None, self.state.rng_key)

    def loss(self, x: np.ndarray, sign: int) -> float:
        noise = signs(np.random.default_rng(0), (len(x), self._latent()), sign)

        def fixed(site: Any) -> Any:
            if site["type"] == "sample" and site["name"] == "z":
                normal = site["fn"].base_dist
                return normal.loc + normal.scale * noise
            return None

        guide = handlers.substitute(self.svi.guide, substitute_fn=fixed)
        params = self.svi.get_params(self.state)
        flat = jnp.asarray(x.reshape(-1, PIXELS))
        loss = self.svi.loss.loss(random.PRNGKey(0), params, self.svi.model, guide, flat)
        return float(loss) / len(x)

    def _latent(self) -> int:
        return self.svi.get_params(self.state)["decoder$params"][0][0].shape[0]
