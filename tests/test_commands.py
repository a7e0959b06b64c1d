"""The commands as a user meets them: what they write, and what they say to mistakes."""

import logging
import pickletools
import re
import subprocess
import sys
import zipfile
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from harness import refusal
from linear_gaussian import PPCA, batches, ready

import pyro_aevb
import pyro_aevb.__main__
from pyro_aevb.cli import run_command
from pyro_aevb.engine import bars, inductor
from pyro_aevb.engine.processes import Alone
from pyro_aevb.estimators.work import Work
from pyro_aevb.reports import duration
from pyro_aevb.reports.assess import DEFAULTS

QUICK = ["--epochs=1", "--num-samples=30", "--num-data=20", "--data=digits", "--show=false"]


def call(function, *words, **options):
    settings = {
        pyro_aevb.evaluate: {"positional": "run", "hidden": ("data",)},
        pyro_aevb.compare: {"positional": "runs"},
    }
    run_command(function, list(words), **settings.get(function, {}), **options)


def refused(capsys, function, *words, **options):
    return refusal(partial(call, function, *words, **options), capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, latent in (("a", "2"), ("b", "5")):
        call(pyro_aevb.fit, *QUICK, f"--out={folder / name}", "--pair.latent_dim", latent)
    return folder


def test_a_run_holds_what_it_promises(trained):
    run = pyro_aevb.Run.open(trained / "a")
    results = run.results
    for key in ("pair", "data", "split", "binarization", "num_data", "seconds", "parameters"):
        assert key in results
    assert (results["data"], results["split"], results["num_data"]) == ("digits", "test", 20)
    assert results["parameters"] == 64 * 500 + 500 + 500 * 4 + 4 + 2 * 500 + 500 + 500 * 64 + 64
    said = results["provenance"]
    assert said["version"] == pyro_aevb.__version__
    assert said["command"].startswith("python -m pyro_aevb.fit ") and "--out" in said["command"]
    assert said["seeds"] == {"training": 0, "scoring": 0}
    assert said["seconds"]["training"] == pytest.approx(run.clock()[-1], abs=1e-3)
    assert said["seconds"]["scoring"] == results["seconds"]
    metrics = results["metrics"]
    per_datum = run.per_datum("predictive", "log_likelihood")
    assert metrics["log_likelihood"]["value"] == pytest.approx(per_datum.mean(), abs=1e-9)
    error = per_datum.std(ddof=1) / np.sqrt(20)
    assert metrics["log_likelihood"]["standard_error"] == pytest.approx(error, rel=1e-9)
    assert metrics["iwae_bound"]["num_samples"] == 30
    assert metrics["gap"]["value"] == pytest.approx(
        metrics["log_likelihood"]["value"] - metrics["elbo"]["value"], abs=1e-9
    )
    assert metrics["weight_kl"]["value"] is None and "global" in metrics["weight_kl"]["reason"]
    assert len(run.history) == 1
    figures = {path.name for path in run.figures.iterdir()}
    names = "history reconstructions samples latent manifold elbo_log_likelihood convergence"
    names += " latent_kl interpolations directions"
    assert figures == {f"{name}.png" for name in names.split()}
    assert "traversals.png" in {p.name for p in (trained / "b" / "figures").iterdir()}


def test_results_open_in_arviz(trained):
    import arviz

    data = arviz.from_netcdf(trained / "a" / "results.nc")
    run = pyro_aevb.Run.open(trained / "a")
    values = np.asarray(data["log_likelihood"]["x"])
    assert values.shape == (1, 1, 20)
    assert values.mean() == pytest.approx(run.results["metrics"]["log_likelihood"]["value"])
    assert np.asarray(data["posterior"]["z"]).shape == (1, 1, 20, 2)


def test_settings_fed_back_reproduce_the_run(trained, tmp_path):
    out = tmp_path / "again"
    call(pyro_aevb.fit, f"--config={trained / 'a' / 'settings.yaml'}", f"--out={out}", QUICK[-1])
    first, again = pyro_aevb.Run.open(trained / "a"), pyro_aevb.Run.open(out)
    assert again.results["metrics"] == first.results["metrics"]
    a, b = (torch.load(r.checkpoint, weights_only=True)["tensors"] for r in (first, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluate_scores_the_trained_pair_again(trained):
    run = pyro_aevb.Run.open(trained / "b")
    before = run.results["metrics"]
    call(pyro_aevb.evaluate, str(run.path), "--num-samples=30", "--num-data=20", "--show", "false")
    assert run.results["metrics"] == before
    results = pyro_aevb.evaluate(run, num_samples=300, num_data=20, show=False)
    assert results["metrics"]["iwae_bound"]["num_samples"] == 300
    # The same pair: the bound rises with K, and not by more than its gap to the truth.
    rise = results["metrics"]["iwae_bound"]["value"] - before["iwae_bound"]["value"]
    assert 0.0 < rise < 1.0
    pyro_aevb.evaluate(run, num_samples=30, num_data=20, show=False)


def test_compare_says_and_draws_what_it_found(trained, capsys):
    pyro_aevb.compare([trained / "a", trained / "b"], out=str(trained / "c"))
    names = {path.name for path in (trained / "c").glob("*.png")}
    assert names == {"comparison.png", "pairwise.png"}
    assert "log_likelihood" in capsys.readouterr().out


def test_epochs_0_scores_the_pair_as_it_stands(tmp_path):
    call(pyro_aevb.fit, *QUICK, "--epochs=0", f"--out={tmp_path / 'r'}")
    run = pyro_aevb.Run.open(tmp_path / "r")
    # Untrained, near the mean image: worse than the entropy of independent pixels by little.
    pixels = pyro_aevb.data.load("digits")
    mean = pixels.mean.clamp(1e-3, 1 - 1e-3).double()
    entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log()).sum()
    value = run.results["metrics"]["reconstruction"]["value"]
    assert -entropy - 6 < value < -entropy + 3
    assert run.checkpoint.is_file() and not run.history


HEAD = "import pyro, pyro.distributions as d, torch\n"
PLATE = f"{HEAD}def model(x):\n    with pyro.plate('data', len(x)):\n        "
GUIDE = "\ndef guide(x): pass\n"
BAD_PAIRS = {
    "no_plate.py": f"{HEAD}def model(x):\n"
    f"    pyro.sample('x', d.Normal(x, 1).to_event(4), obs=x){GUIDE}",
    "one_side.py": f"{PLATE}z = pyro.sample('z', d.Normal(x.new_zeros(len(x)), 1))\n"
    f"        pyro.sample('x', d.Normal(x * 0, 1).to_event(3), obs=x){GUIDE}",
    "to_event.py": f"{PLATE}pyro.sample('x', d.Normal(x * 0, 1), obs=x){GUIDE}",
    "grey.py": f"{PLATE}pyro.sample('x', d.Bernoulli(x * 0 + 0.5).to_event(3), obs=x){GUIDE}",
    "shape.py": f"{PLATE}h = x.flatten(1) @ torch.zeros(784, 1)\n"
    f"        pyro.sample('x', d.Normal(x * 0 + h.mean(), 1).to_event(3), obs=x){GUIDE}",
    "half.py": "def model(x): pass\n",
    "syntax.py": "def model(x) pass\n",
    "enumerated.py": f"{PLATE}c = d.Bernoulli(torch.tensor(0.5))\n"
    "        c = pyro.sample('c', c, infer={'enumerate': 'parallel'})\n"
    "        m = c[..., None, None, None].expand(c.shape + x.shape[1:])\n"
    "        pyro.sample('x', d.Normal(m, 1.0).to_event(3), obs=x)\n"
    "def guide(x): pyro.param('unused', torch.zeros(1))\n",
    "fine.py": f"{PLATE}m = pyro.param('m', lambda: x.new_zeros(x.shape[1:]))\n"
    f"        pyro.sample('x', d.Normal(m, 1).to_event(3), obs=x){GUIDE}",
}

MISTAKES = [
    (["--epoks=3"], "unknown flag --epoks; did you mean --epochs?"),
    (["--latent_dim=3"], "unknown flag --latent-dim; 'latent_dim' is a parameter of the pair: --p"),
    (["--latent-dims", "3"], "unknown flag --latent-dims; did you mean --pair.latent_dim 3?"),
    (
        ["--pair=FactorVAE", "--gamma=6"],
        "an option of the algorithm: --algorithm-options '{gamma: 6}",
    ),
    (
        ["--weight-decay=0.1"],
        "an option of the optimizer: --optimizer-options '{weight_decay: 0.1}'",
    ),
    (["--schedule=cosine", "--final=0"], "--schedule-options '{final: 0}'"),
    (["--objective=beta_tcvae", "--alpha=2"], "--objective-options '{alpha: 2}'"),
    (["--corruption=masking", "--rate=0.3"], "--corruption-options '{rate: 0.3}'"),
    (["--config={dir}/settings.yaml", "--latent_dim=3"], "--latent-dim; see"),
    (["--data=mnist5"], "mnist5k"),
    (["--epochs=many"], "--epochs takes a whole number, not 'many'"),
    (["--epochs=-1"], "--epochs is -1"),
    (["--lr=0"], "--lr is 0"),
    (["--batch-size=0"], "--batch-size is 0"),
    (
        ["--binarize=dyn"],
        "--binarize takes none, dynamic, fixed, not 'dyn' (did you mean 'dynamic'?)",
    ),
    (["--num-samples=0"], "--num-samples is 0"),
    (["--num-data=100000"], "--num-data is 100000"),
    (["--optimizer=adma"], "no optimizer 'adma'"),
    (["--optimizer=lbfgs"], "not one for dense stochastic gradients"),
    (["--schedule=LRScheduler"], "no schedule 'LRScheduler'"),
    (["--objective=pyro.infer.JitTrace_ELBO"], "use --objective pyro.infer.Trace_ELBO"),
    (["--objective=pyro.infer.Trace_MMD"], "from Python, give an instance"),
    (["--seed=-3"], "--seed is -3"),
    (["--memory=0"], "--memory is 0"),
    (["--pair.hidden=abc"], "--pair.hidden takes a list such as [256,128]"),
    (["--pair={dir}/enumerated.py"], "use --objective pyro.infer.TraceEnum_ELBO"),
    (["--optimizer-options={bettas: 1}"], "--optimizer-options"),
    (["--schedule=cosinus"], "no schedule 'cosinus'"),
    (["--objective=elbow"], "no objective 'elbow'"),
    (["--device=cuda:77"], "cuda:77"),
    (["--device=warp"], "--device 'warp'"),
    (["--pair=VEA"], "did you mean VAE?"),
    (["--pair=vae"], "did you mean VAE?"),
    (["--pair=nowhere.py"], "no file 'nowhere.py'"),
    (["--pair={dir}/fine.py:Nope"], "defines no 'Nope'"),
    (["--pair={dir}/half.py"], "no `guide`"),
    (["--pair={dir}/syntax.py"], "line 1: SyntaxError"),
    (["--pair.latent_dims=3"], "did you mean 'latent_dim'?"),
    (["--pair.latent_dim=three"], "--pair.latent_dim takes a whole number, not 'three'"),
    (["--pair.latent_dim=0"], "latent_dim"),
    (["--pair={dir}/fine.py", "--pair.width=3"], "takes no parameters"),
    (["--pair={dir}/no_plate.py"], "'x' lies in no plate"),
    (["--pair={dir}/one_side.py"], "'z' is in the model but not in the guide"),
    (["--pair={dir}/to_event.py"], ".to_event(n"),
    (["--pair={dir}/grey.py", "--binarize=none"], "outside the support of Bernoulli"),
    (["--pair={dir}/shape.py"], "is it made for data of shape (1, 8, 8)?"),
    (["--data={dir}/wide.npy", "--binarize=none"], "needs data in [0, 1]"),
    (["--data={dir}/nan.npy"], "nan.npy"),
    (["--out={dir}/taken"], "exists and is not a run"),
    (["--out={dir}/new", "--resume"], "is not a run"),
    (["--out={dir}/fine.py/run"], "Not a directory"),
    (["--config={dir}/none.yaml"], "no settings file"),
    (["stray"], "stray"),
]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in BAD_PAIRS.items():
        (folder / name).write_text(text)
    (folder / "settings.yaml").write_text("pair: elsewhere.py\n")
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("mine")
    wide = np.random.RandomState(0).randn(100, 5).astype(np.float32)
    np.save(folder / "wide.npy", wide)
    wide[3, 2] = np.nan
    np.save(folder / "nan.npy", wide)
    return folder


@pytest.mark.parametrize("words, said", MISTAKES, ids=[words[-1] for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_status_2(words, said, mistakes, capsys, tmp_path):
    words = [word.replace("{dir}", str(mistakes)) for word in words]
    out = [] if any(word.startswith("--out") for word in words) else [f"--out={tmp_path / 'out'}"]
    assert said in refused(capsys, pyro_aevb.fit, "--data=digits", "--show=false", *out, *words)
    assert not (tmp_path / "out").exists() and not (mistakes / "new").exists()
    assert [p.name for p in (mistakes / "taken").iterdir()] == ["thesis.txt"]


class Bomb:
    r"""Writes a file if it is ever unpickled."""

    target = ""

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "truncated or damaged"),
        (lambda path: path.write_bytes(b"not a checkpoint at all"), "damaged"),
        (lambda path: path.unlink(), "no checkpoint"),
        (lambda path: torch.save({"format": 1, "tensors": Bomb()}, path), "refused"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_never_executed(damage, said, tmp_path, capsys):
    out, target = tmp_path / "r", tmp_path / "executed"
    call(pyro_aevb.fit, *QUICK, f"--out={out}", "--pair.hidden=[3]")
    Bomb.target = str(target)
    damage(out / "checkpoint.pt")
    before = (out / "results.json").read_text()
    assert said in refused(capsys, pyro_aevb.evaluate, str(out))
    assert not target.exists()
    assert (out / "results.json").read_text() == before


@pytest.mark.parametrize(
    "words, said",
    [
        (["--pair.latent_dim=3"], "pair_parameters is {'latent_dim': 2} there"),
        (["--lr=0.1"], "lr is 0.001 there and 0.1 here"),
        (["--optimizer=sgd"], "optimizer is 'adam' there"),
        (["--batch-size=7"], "batch_size is 100 there"),
        (["--drop-last"], "drop_last is False there and True here"),
        (["--data=mnist5k"], "data is 'digits' there"),
        (["--epochs=0"], "has 1 already"),
        (["--patience=2"], "patience is 0 there and 2 here"),
    ],
)
def test_a_resumed_run_keeps_its_settings(words, said, trained, capsys):
    settings = trained / "a" / "settings.yaml"
    before, words = settings.read_text(), ["--resume", "--show=false", *words]
    resumed = {"resume_from": lambda _: str(settings)}
    assert said in refused(capsys, pyro_aevb.fit, f"--out={trained / 'a'}", *words, **resumed)
    assert settings.read_text() == before


def test_a_run_resumed_in_python_keeps_its_settings(tmp_path):
    """A weight of the KL of 0 is not none; nor are defaults in the place of what is left out."""
    same = {"num_samples": 5, "num_data": 20, "proposal": "guide", "show": False}
    settings = {**same, "pair_parameters": {"latent_dim": 2}, "lr": 0.02, "beta": 0.0, "seed": 3}
    whole = pyro_aevb.fit("VAE", "digits", epochs=2, out=str(tmp_path / "a"), **settings)
    out = str(tmp_path / "b")
    first = pyro_aevb.fit("VAE", "digits", epochs=1, out=out, **settings)
    with pytest.raises(pyro_aevb.UsageError, match="beta is 0.0 there and None here"):
        pyro_aevb.fit(out=out, resume=True, beta=None)
    again = pyro_aevb.fit(out=out, resume=True, epochs=2, show=False)
    assert [row["kl_scale"] for row in again.history] == [0.0, 0.0]
    for row, other in zip(whole.history, again.history, strict=True):
        assert {**row, "images_per_second": 0} == {**other, "images_per_second": 0}
    assert again.results["metrics"] == whole.results["metrics"]
    assert {**again.settings, "out": 0} == {**whole.settings, "out": 0}
    given = pyro_aevb.fit(again.pair, "digits", epochs=0, out=str(tmp_path / "c"), **same)
    with pytest.raises(pyro_aevb.UsageError, match="the Python object <VAE> as pair; give it"):
        pyro_aevb.fit(out=str(given.path), resume=True)
    assert first.path == again.path


def test_a_pair_whose_file_changed_is_noticed(mistakes, tmp_path):
    path = tmp_path / "pair.py"
    path.write_text((mistakes / "fine.py").read_text())
    out = tmp_path / "r"
    call(pyro_aevb.fit, *QUICK, f"--pair={path}", f"--out={out}")
    assert pyro_aevb.evaluate(out, num_data=20, show=False)["notes"] == []
    path.write_text(path.read_text().replace("Normal(m, 1)", "Normal(m, 2)"))
    with pytest.raises(pyro_aevb.UsageError, match="has changed since: .*--trust"):
        pyro_aevb.evaluate(out, num_data=20, show=False)
    (note,) = pyro_aevb.evaluate(out, num_data=20, show=False, trust=True)["notes"]
    assert "source has changed" in note


def test_runs_scored_with_different_numbers_of_samples_are_marked(trained, tmp_path, capsys):
    call(pyro_aevb.fit, *QUICK, "--num-samples=7", f"--out={tmp_path / 'r'}")
    pyro_aevb.compare([trained / "a", tmp_path / "r"], out=str(tmp_path / "c"))
    text = (tmp_path / "c" / "comparison.md").read_text()
    assert "| samples |" in text and "K = 30" in text and "K = 7" in text
    assert "warning: scored with different numbers of samples" in text
    with pytest.raises(pyro_aevb.UsageError, match="named twice"):
        pyro_aevb.compare([trained / "a", trained / "a"])


def test_a_run_that_exists_is_not_overwritten(trained, capsys):
    said = refused(capsys, pyro_aevb.fit, *QUICK, f"--out={trained / 'a'}")
    assert "already holds a run; add --resume" in said


def test_one_process_at_a_time_trains_a_run(tmp_path, capsys):
    out = tmp_path / "r"
    with pyro_aevb.Run(out).alone():
        pyro_aevb.Run(out).write_settings({"pair": "VAE", "data": "digits"})
        error = refused(capsys, pyro_aevb.fit, *QUICK, f"--out={out}", "--resume")
    assert error == f"error: another process is training {out}\n"
    call(pyro_aevb.fit, *QUICK, f"--out={out}", "--resume")


def test_runs_on_other_data_are_not_compared(trained, tmp_path, capsys):
    call(pyro_aevb.fit, *QUICK, "--num-data=30", f"--out={tmp_path / 'r'}")
    error = refused(capsys, pyro_aevb.compare, str(trained / "a"), str(tmp_path / "r"))
    assert "num data is 20 in one and 30 in the other" in error


def test_without_permission_nothing_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)
    error = refused(capsys, pyro_aevb.fit, *QUICK, f"--out={tmp_path / 'r'}")
    assert "no permission to write" in error and not (tmp_path / "r").exists()


def test_python_objects_train_and_are_asked_for_again(tmp_path):
    from pathlib import Path

    data = pyro_aevb.data.load("digits")
    pair = pyro_aevb.VAE((1, 8, 8), latent_dim=2, hidden=(7,))
    settings = {"epochs": 1, "num_samples": 30, "num_data": 20, "show": False}
    run = pyro_aevb.fit(pair, data, out=str(tmp_path / "r"), **settings)
    metrics = run.results["metrics"]
    with pytest.raises(pyro_aevb.UsageError, match=r"the Python object <VAE>; call .*pair="):
        pyro_aevb.evaluate(run.path, show=False)
    given = {"pair": pair, "data": data, "num_samples": 30, "num_data": 20, "show": False}
    assert pyro_aevb.evaluate(run, **given)["metrics"] == metrics

    # The same pair by its name, with parameters and a path as Python writes them.
    pixels = data.train.images.flatten(1)[:200].numpy()
    np.save(tmp_path / "own.npy", (pixels > 8).astype(np.uint8))
    parameters = {"latent_dim": 2, "hidden": (7,)}
    run = pyro_aevb.fit(
        "VAE", Path(tmp_path / "own.npy"), parameters, out=str(tmp_path / "s"), **settings
    )
    again = pyro_aevb.evaluate(run, num_samples=30, num_data=20, show=False)
    assert again["metrics"] == run.results["metrics"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom pyro_aevb import fit\nfrom pyro_aevb.cli import run_command\n"
        "try:\n    run_command(fit, ['--help'])\nexcept SystemExit as e:\n"
        "    assert e.code == 0\nassert not {'torch', 'pyro', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--batch-size" in done.stdout and "--pair.NAME" in done.stdout


@pytest.mark.parametrize(
    "module, positional, said",
    [
        ("fit", None, ["How it learns:", "--epochs N", "as it stands. Default 100.", "--resume "]),
        (
            "evaluate",
            "run",
            ["On other input:", "--split {test,valid,train}", "the draws. Default 0."],
        ),
        ("compare", "runs", ["Where it goes:", "--export EXPORT", "--show {true,false}"]),
        ("studies.study", "name", ["Machine:", "--jobs N", "core. Default 1."]),
    ],
)
def test_help_shows_groups_placeholders_and_defaults(module, positional, said, capsys):
    found = import_module(f"pyro_aevb.{module}")
    command = getattr(found, module.rpartition(".")[2])
    with pytest.raises(SystemExit):
        run_command(command, ["--help"], positional, ("on_epoch",), groups=found.GROUPS)
    text = " ".join(capsys.readouterr().out.split())
    assert all(words in text for words in said)
    assert not re.search(r"type:|null|Optional|Literal|:func:|in Python also|Others", text)


def test_a_checkpoint_holds_tensors_and_plain_numbers_only(trained):
    with zipfile.ZipFile(trained / "a" / "checkpoint.pt") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        stream = archive.read(name)
    called = {arg for op, arg, _ in pickletools.genops(stream) if op.name == "GLOBAL"}
    assert called and all(c.startswith(("torch", "collections OrderedDict")) for c in called)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    "words, said",
    [
        (["fitt"], "no command 'fitt' (did you mean 'fit'?); use fit, evaluate, check, compare"),
        (["evaluate"], "name a run's directory: python -m pyro_aevb.evaluate RUN"),
        (["check", "--pair", "VAEE"], "no pair 'VAEE'"),
    ],
)
def test_one_command_has_them_all(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pyro-aevb", *words])
    assert said in refusal(pyro_aevb.__main__.main, capsys)


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    with bars.bar(total=1000, unit="step", desc="training") as shown:
        for second in range(200):
            now[0] = float(second)
            shown.update(5)
            shown.set_postfix_str(f"epoch {second}")
            if second == 50:
                shown.write("said", file=sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "training: 55 of 1000 (6 %)",
        "said",
        "training: 355 of 1000 (36 %)",
        "training: 655 of 1000 (66 %)",
        "training: 955 of 1000 (96 %)",
    ]
    assert lines[0].endswith("epoch 9") or lines[0].endswith("epoch 10")


@pytest.mark.parametrize(
    "n, times, said",
    [
        # 10 s for 4 data, and half a second for each of the others
        (2100, (10.0, 16.0), "about 18 min; --num-data 100 scores the first 100 in about 1 min\n"),
        (2100, (0.1, 0.34), "about 40 s\n"),
        (600, (0.1, 0.34), "about 10 s\n"),
        (2100, (0.1, 0.15), ""),
    ],
)
def test_how_long_scoring_takes_is_said_before_it(n, times, said, monkeypatch, capsys):
    source = PPCA()
    x = source.data(n)
    clock = iter((0.0, times[0], 0.0, times[1]))
    monkeypatch.setattr(duration.time, "perf_counter", lambda: next(clock))
    state = torch.get_rng_state()
    work = Work(Alone("cpu"), show=True)
    duration.say_how_long(ready(source, x[:5]), batches(x), DEFAULTS, work)
    expected = f"scoring {n:,} data takes up to {said}" if said else ""
    assert capsys.readouterr().err == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_no_toolkit_without_a_gpu_is_warned_of(monkeypatch, caplog):
    logger = logging.getLogger("torch.utils.cpp_extension")
    with inductor.without_cuda():
        logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr")
        logger.warning("another")
    assert [record.getMessage() for record in caplog.records] == ["another"]
