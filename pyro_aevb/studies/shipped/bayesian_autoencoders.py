r"""Bayesian autoencoders: weights, codes, or both as random variables.

The comparison of Wacker and Ibarrondo, "Comparing Autoencoders: Performance Impact of Variational
Parameters" (slides, 2018; code and stored outputs: https://github.com/ibarrond/VariationalAutoencoders).
"""

from collections.abc import Callable
from functools import partial

from pyro_aevb.studies.declare import Figure, Study, Table
from pyro_aevb.studies.figures import codes, decoded_grids, reconstructions
from pyro_aevb.studies.shipped.autoencoder_grids import denoising, protocol, reachable, search
from pyro_aevb.studies.shipped.wacker_ibarrondo import CLEAN, NOISY_PUBLISHED

CEILING = (
    "`reconstruction`: the expected log-likelihood of the test images' pixels under sampled codes "
    "and weights, in nats. The pixels are grey, so it is a cross-entropy: perfect reconstruction "
    "gives -45.53, the mean image -205.96."
)
NOISE_TEXT = (
    "The same for images to which Gaussian noise of standard deviation 0.1 was added, clipped to "
    "[0, 1], and the clean image as the target."
)
SEARCH = (
    "`reconstruction` of the 5,000 validation images after 50 epochs, by which the training in the "
    "tables of what is reachable was chosen."
)
REACHABLE = (
    "The same architectures and data with another training, and for the Bayesian net and the "
    "hybrid a KL term weighed down, as it is in effect in the published runs, or at full weight "
    "(*full KL*): see below how the settings were chosen."
)
AWARE = (
    "The same after training on images with such noise, which the published nets never saw: "
    "compared with them it says what training is worth, not which family is better."
)
REACHES = ", what is reachable"
GREY = (
    "In nats per image: `reconstruction` less the KL of the codes, at its full weight whatever it "
    "had in training. It bounds the log-density that a net, or the average over random weights, "
    "gives to new images; the weights' KL, a cost of the training data, is not in it and has a "
    "table of its own. Pixels are grey, so it bounds a cross-entropy: see the first table."
)
ESTIMATE = (
    "A lower bound on the log-likelihood, in expectation, from 100 codes drawn from the guide, or "
    "100 for each of 10 draws of the weights where these are random: loose where the tail shape of "
    "the importance weights, below, is above 0.7, as it is in all cells so far."
)
TAIL = "Pareto k of the weights that the bound averages, the mean over images."
WEIGHTS = "In nats per image: the KL divergence of all weights over the 55,000 training images."
# "VAEs < GANs (x1.5) < Bayesian NNs (x5.5)" in time and x1.5, x4 in parameters.
TIMES = (
    "Of an epoch, on one core while another cell ran on the other: the same cell can take twice as "
    "long at another hour. The slides say, without an architecture or whether of an epoch: the "
    "adversarial autoencoder 1.5, the Bayesian net 5.5 times the VAE."
)
PARAMETERS = (
    "The slides say, without an architecture: the adversarial autoencoder 1.5, the Bayesian net 4 "
    "times the VAE. Theirs also learns the mean and the variance of each weight's prior; here a "
    "prior has one trained scale for each tensor of weights."
)


def picture(
    name: str, caption: str, draw: Callable[..., None], grid: str = protocol.name
) -> Figure:
    about = "128-64-2, one seed, means of codes and weights"
    return Figure(name, f"{caption}; {about}, {grid}.", draw, grid, rows=["128-64-2"])


def of_both(title: str, quantity: str, text: str = "") -> list[Table]:
    r"""A table under the protocol, and one of what is reachable."""
    return [
        Table(f"{title}{suffix}", grid.name, quantity, text=text)
        for suffix, grid in (("", protocol), (REACHES, reachable))
    ]


STUDY = Study(
    title="Bayesian autoencoders",
    text="Autoencoders whose weights, codes, both, or neither are random, on grey MNIST, beside "
    "the figures of Wacker and Ibarrondo, *Comparing Autoencoders: Performance Impact of "
    "Variational Parameters* (2018), <https://github.com/ibarrond/VariationalAutoencoders>: "
    "slides, and notebooks with stored outputs. "
    "An architecture is the widths of the encoder and the size of the code; the decoder mirrors "
    "the encoder. Their Bayesian net leaves the output layer out of the KL and learns mean and "
    "variance of the prior of each weight; their hybrid matches moments of 10 codes and weighs the "
    "KL of the codes by about 1/55,000. Here both are variational Bayes, with priors centred at 0 "
    "that have one trained scale for each tensor of weights: with the bound as it is derived in "
    "the first tables, and in those of what is reachable both so (*full KL*) and with a KL term "
    "weighed down.",
    grids=(protocol, search, reachable, denoising),
    tables=(
        Table("Reconstruction", "protocol", "test/reconstruction", CLEAN, text=CEILING),
        Table(
            "Reconstruction under noise",
            "protocol",
            "noisy/reconstruction",
            NOISY_PUBLISHED,
            text=NOISE_TEXT,
        ),
        Table(
            f"Reconstruction{REACHES}",
            "reachable",
            "test/reconstruction",
            CLEAN,
            text=REACHABLE,
        ),
        Table(
            f"Reconstruction under noise{REACHES}",
            "denoising",
            "noisy/reconstruction",
            NOISY_PUBLISHED,
            text=AWARE,
        ),
        Table(
            "What was tried, on validation data", "search", "history/reconstruction", text=SEARCH
        ),
        Table(
            "Reconstruction of clean images after training under noise",
            "denoising",
            "test/reconstruction",
        ),
        *of_both("ELBO", "test/elbo", GREY),
        *of_both("Importance-weighted bound", "test/iwae_bound", ESTIMATE),
        *of_both("Tail shape of the importance weights", "test/iwae_bound.pareto_k", TAIL),
        *of_both("KL of the codes", "test/kl"),
        *of_both("KL of the weights", "test/weight_kl", WEIGHTS),
        Table(
            "Training time relative to the VAE",
            "protocol",
            "seconds_per_epoch",
            relative_to="VAE",
            lower_is_better=True,
            text=TIMES,
        ),
        Table(
            "Parameters relative to the VAE",
            "protocol",
            "parameters",
            relative_to="VAE",
            lower_is_better=True,
            text=PARAMETERS,
        ),
    ),
    figures=(
        picture("reconstructions", "Reconstructions", reconstructions),
        picture(
            "reconstructions-noisy",
            "Reconstructions of images with noise of standard deviation 0.1",
            partial(reconstructions, noise=0.1),
        ),
        picture(
            "reconstructions-noisy-trained",
            "The same by nets that were trained on images with such noise",
            partial(reconstructions, noise=0.1),
            denoising.name,
        ),
        picture("codes", "Test images encoded into two dimensions", codes),
        picture(
            "codes-noisy",
            "The same images with noise of standard deviation 0.1",
            partial(codes, noise=0.1),
        ),
        picture(
            "grids",
            "A uniform grid over the central 95 % of the codes, decoded",
            decoded_grids,
        ),
    ),
)
