r"""Two pairs, trained and compared from Python: what does a mixture prior buy, with 2-D codes?

Called again, it takes up the runs that it finds.

    python examples/compare_two_pairs.py
"""

from pathlib import Path

import pyro_aevb

MY_VAE = f"{Path(__file__).with_name('my_vae.py')}:MyVAE"
NETS_ALIKE = {"hidden": [300], "activation": "relu", "output_bias": "zero"}
PAIRS = {
    "normal-prior": ("VAE", {"latent_dim": 2, **NETS_ALIKE}),
    "mixture-prior": (MY_VAE, {"latent_dim": 2, "hidden": 300}),
}


def main(epochs: int = 20, out: str = "runs/comparison") -> None:
    runs = []
    for name, (pair, parameters) in PAIRS.items():
        run = pyro_aevb.fit(
            pair,
            data="mnist5k",
            pair_parameters=parameters,
            epochs=epochs,
            num_samples=500,
            out=f"{out}/{name}",
            resume=Path(out, name).exists(),
        )
        runs.append(run)
    pyro_aevb.compare(runs, out=out)


if __name__ == "__main__":
    main()
