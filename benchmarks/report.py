r"""A result as JSON, as a page of the documentation, and as a picture."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "pyro-ppl", "numpyro", "jax", "pythae", "numpy")
COLORS = {"project": "#c2410c", "floor": "#9ca3af", "other": "#475569"}


def circumstances(module: str, device: str) -> dict[str, Any]:
    r"""What a number means nothing without: the machine, the versions, the command, the day."""
    import torch

    from pyro_aevb.reports.assess import processor

    machine = {"cpu": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device != "cpu":
        machine["gpu"] = torch.cuda.get_device_name()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        module_name = {"pyro-ppl": "pyro"}.get(package, package)
        found = find_spec(module_name) is not None
        versions[package] = importlib.metadata.version(package) if found else "not installed"
    return {
        "machine": machine,
        "versions": versions,
        "medium": medium_products(device),
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def medium_products(device: str) -> str:
    r"""What ``"medium"`` makes of float32 products here, told by their error, or ``"float32"``.

    It is a permission, not an order: a CPU without the units, or a library without the kernels,
    keeps to float32.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    a, b = torch.rand(256, 256, device=device), torch.rand(256, 256, device=device)
    exact = a.double() @ b.double()
    torch.set_float32_matmul_precision("medium")
    error = float(((a @ b).double() / exact - 1).abs().max())
    torch.set_float32_matmul_precision(before)
    if error < 5e-6:
        return "float32"
    return "TF32" if device != "cpu" else "bf16"


def circumstances_line(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads{gpu}; {named}; "
        f"`medium` means {result['medium']} products in `torch.mm` here; "
        f"{result['date']}; `{result['command']}`."
    )


def collect(
    path: Path, networks: Sequence[str], measure: Callable[[str], Any], page: Callable[[Any], str]
) -> dict[str, Any]:
    r"""Measure networks one by one, each kept as soon as it is done; then write the page of all."""
    results = merge(path, {})
    for name in networks:
        results = merge(path, {name: measure(name)})
    path.with_suffix(".md").write_text(page(results))
    return results


def merge(path: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    r"""Write results by network; those of networks that were not measured now are kept."""
    kept = json.loads(path.read_text()) if path.is_file() else {}
    merged = {**kept, **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1) + "\n")
    return merged


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def spread(seconds: Sequence[float], factor: float, places: int = 2) -> list[str]:
    r"""The median over rounds, and the range."""
    median, low, high = (f(seconds) * factor for f in (statistics.median, min, max))
    return [f"{median:.{places}f}", f"{low:.{places}f} to {high:.{places}f}"]


def bars(
    path: Path,
    panels: Mapping[str, Mapping[str, float]],
    unit: str,
    titles: Mapping[str, str],
) -> None:
    r"""A panel for each network, a bar for each contender; shorter is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [len(values) + 1.6 for values in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, 0.32 * sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for ax, (heading, values) in zip(axes[:, 0], panels.items(), strict=True):
        names = sorted(values, key=lambda name: values[name], reverse=True)
        lengths = [values[name] for name in names]
        kinds = [name.partition("-")[0] for name in names]
        colors = [COLORS.get(kind, COLORS["other"]) for kind in kinds]
        drawn = ax.barh([titles[name] for name in names], lengths, color=colors, height=0.7)
        labels = [f"{v:.3g}" for v in lengths]
        ax.bar_label(drawn, labels, padding=3, fontsize=8)
        ax.set_title(heading, loc="left", fontsize=10)
        ax.set_xlim(0, 1.1 * max(lengths))
        ax.tick_params(axis="y", length=0, labelsize=9)
        ax.tick_params(axis="x", labelsize=8)
        ax.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{unit.capitalize()}; shorter is better", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)
