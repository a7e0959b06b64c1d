"""What a file of settings may run: nothing that nobody here has named or agreed to."""

import importlib
import shutil
import sys
from functools import partial

import pytest
import torch
import yaml
from harness import refusal

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs import consent
from pyro_aevb.pairs.locate import constructor
from pyro_aevb.pairs.pair import load_pair

QUICK = [
    "--epochs=1",
    "--num-samples=30",
    "--num-data=20",
    "--data=digits",
    "--show=false",
    "--proposal=guide",
]
SMALL = {"num_samples": 30, "num_data": 20, "show": False, "proposal": "guide"}

PAIR = """
from os import popen
from subprocess import Popen, getoutput

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class MyVAE(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 2 * width), nn.Linear(width, 64)

    def model(self, x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), self.decoder.in_features), 1.0).to_event(1)
            logits = self.decoder(pyro.sample("z", prior)).reshape(x.shape)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x.flatten(1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def make(width: int = 3):
    return MyVAE(width)


class Held:
    def __init__(self, width: int = 3):
        whole = MyVAE(width)
        self.whole, self.model, self.guide = whole, whole.model, whole.guide


def clean(folder):
    open(folder, "w")
"""

MARKING = "import pathlib\npathlib.Path({mark!r}).touch()\n"


def resume_from(arguments):
    return importlib.import_module("pyro_aevb.fit")._settings_of_run(arguments)


def fit(*words):
    run_command(pyro_aevb.fit, list(words), resume_from=resume_from)


def evaluate(run, *words):
    small = ["--num-samples=30", "--num-data=20", "--proposal=guide", "--show=false"]
    run_command(pyro_aevb.evaluate, [str(run), *small, *words], "run", ("data",))


def log_likelihood(run):
    return pyro_aevb.Run.open(run).results["metrics"]["log_likelihood"]["value"]


def change(run, **settings):
    path = run / "settings.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
    return path


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A run of the user's own file, and what it came to."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_pair.py").write_text(PAIR)
    fit(*QUICK, f"--pair={folder / 'my_pair.py'}:MyVAE", f"--out={folder / 'run'}")
    return folder


@pytest.fixture
def sent(mine, tmp_path, monkeypatch):
    """The same run as somebody may send it, with code in its directory, which one stands in."""
    run = tmp_path / "sent"
    shutil.copytree(mine / "run", run)
    mark = str(tmp_path / "mark")
    (run / "evil_pair.py").write_text(MARKING.format(mark=mark) + PAIR)
    (run / "evil_package").mkdir()
    (run / "evil_package" / "__init__.py").write_text(MARKING.format(mark=mark))
    (run / "evil_package" / "pairs.py").write_text(PAIR)
    (run / "other.yaml").write_text(f"pair: {run / 'evil_pair.py'}:MyVAE\n")
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(str(run))
    yield run
    for name in [name for name in sys.modules if name.startswith("evil_p")]:
        del sys.modules[name]


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


SHELL, TOUCH = {"cmd": "touch {mark}"}, {"args": ["touch", "{mark}"]}


def filled(value, **names):
    if isinstance(value, dict):
        return {key: filled(entry, **names) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, **names) for entry in value]
    return value.format(**names) if isinstance(value, str) else value


def refused(command, *words, capsys):
    return refusal(partial(command, *words), capsys)


def check(*words):
    run_command(pyro_aevb.check, list(words))


@pytest.mark.parametrize("tag", ["object/apply:os.system ['touch {mark}']", "name:evil_pair.MyVAE"])
def test_yaml_makes_no_objects(tag, mine, sent, tmp_path, capsys):
    path, mark = sent / "settings.yaml", tmp_path / "mark"
    text = path.read_text()
    path.write_text(text + "corruption_options: !!python/" + tag.format(mark=mark) + "\n")
    assert "not readable YAML" in refused(evaluate, sent, capsys=capsys)
    refused(fit, "--resume", f"--out={sent}", capsys=capsys)
    refused(fit, f"--config={path}", f"--out={tmp_path / 'new'}", capsys=capsys)
    assert not mark.exists() and "evil_pair" not in sys.modules
    path.write_text(text)
    evaluate(sent)
    assert log_likelihood(sent) == log_likelihood(mine / "run")


def test_ones_own_run_needs_no_flag_and_another_ones_is_asked_for(
    sent, tmp_path, monkeypatch, capsys
):
    """As in the README: fit one's own file, then evaluate the run, in any later process."""
    (tmp_path / "own.py").write_text(PAIR)
    out, again, value = tmp_path / "out", tmp_path / "again", log_likelihood(sent)
    fit(*QUICK, f"--pair={tmp_path / 'own.py'}:MyVAE", f"--out={out}")
    monkeypatch.setattr(consent, "_AGREED", set())  # as in another process
    evaluate(out)
    assert log_likelihood(out) == value
    fit(f"--config={out / 'settings.yaml'}", f"--out={again}", "--show=false")
    assert log_likelihood(again) == value

    # Elsewhere nobody has named the file; what is agreed to once is not asked for again.
    monkeypatch.setenv("PYRO_AEVB_TRUSTED", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(consent, "_AGREED", set())
    error = refused(evaluate, out, capsys=capsys)
    assert f"names pair {tmp_path / 'own.py'}:MyVAE" in error and "--trust" in error
    moved = tmp_path / "moved.py"
    shutil.copy(tmp_path / "own.py", moved)
    evaluate(out, f"--pair={moved}:MyVAE", "--seed=31")
    assert log_likelihood(out) != value
    refused(evaluate, out, capsys=capsys)
    for trust in (["--trust"], []):
        evaluate(out, *trust)
        assert log_likelihood(out) == value
    (tmp_path / "own.py").rename(tmp_path / "away.py")
    error = refused(evaluate, out, capsys=capsys)
    assert "a file that is not here; say where it is now: --pair FILE:NAME" in error

    # The payload of the other tests is alive, and `--trust` says so.
    file = change(sent, pair=f"{sent / 'evil_pair.py'}:MyVAE")
    fit(f"--config={file}", f"--out={tmp_path / 'third'}", "--trust", "--show=false")
    assert log_likelihood(tmp_path / "third") == value and (tmp_path / "mark").exists()


def test_without_a_place_for_the_record_settings_ask(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(PAIR)
    source, out = f"{tmp_path / 'own.py'}:make", tmp_path / "out"
    for variable, place in (("PYRO_AEVB_TRUSTED", "/dev/null/x"), ("XDG_STATE_HOME", "state")):
        monkeypatch.delenv("PYRO_AEVB_TRUSTED", raising=False)
        monkeypatch.setenv(variable, place)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(consent, "_AGREED", set())
        shutil.rmtree(out, ignore_errors=True)
        run = pyro_aevb.fit(source, "digits", epochs=1, out=str(out), **SMALL)
        value = log_likelihood(out)
        results = pyro_aevb.evaluate(run, **SMALL)  # the process that trained it knows
        assert results["metrics"]["log_likelihood"]["value"] == value
        monkeypatch.setattr(consent, "_AGREED", set())
        refused(evaluate, out, capsys=capsys)
        evaluate(out, "--trust")
        assert log_likelihood(out) == value and not (tmp_path / "state").exists()


def test_a_stock_objective_needs_no_consent_and_ones_own_is_remembered(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_losses.py").write_text(
        "from pyro.infer import Trace_ELBO\nclass Mine(Trace_ELBO): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    small = [*QUICK, "--pair.hidden=[5]", "--pair.latent_dim=2"]
    for name in ("pyro.infer.Trace_ELBO", "my_losses.Mine"):
        fit(*small, f"--objective={name}", f"--out={tmp_path / name}")
        monkeypatch.setattr(consent, "_AGREED", set())
        file, again = tmp_path / name / "settings.yaml", tmp_path / f"{name}-again"
        fit(f"--config={file}", f"--out={again}", "--show=false")
        assert log_likelihood(again) == log_likelihood(tmp_path / name)
    assert log_likelihood(again) == log_likelihood(tmp_path / "pyro.infer.Trace_ELBO")
    with (tmp_path / "my_losses.py").open("a") as losses:
        losses.write("raise SystemExit('executed')\n")
    monkeypatch.delitem(sys.modules, "my_losses")
    new = f"--out={tmp_path / 'new'}"
    error = refused(fit, f"--config={file}", new, capsys=capsys)
    assert "names objective my_losses.Mine" in error


@pytest.mark.parametrize(
    "source, parameters",
    [
        ("subprocess:getoutput", SHELL),
        ("subprocess:Popen", TOUCH),
        ("os:system", {"command": "touch {mark}"}),
        ("torch.nn:Linear", {"in_features": 3, "out_features": 3}),
        ("{mine}/my_pair.py:getoutput", SHELL),
        ("{mine}/my_pair.py:popen", SHELL),
        ("{mine}/my_pair.py:Popen", TOUCH),
        ("{mine}/my_pair.py:nn", {}),
    ],
)
def test_even_if_named_what_is_no_pair_is_not_called(source, parameters, mine, tmp_path):
    mark = tmp_path / "mark"
    names = {"mine": mine, "mark": mark}
    with pytest.raises(UsageError, match="is not a pair|has no `model`"):
        load_pair(source.format(mine=mine), filled(parameters, **names))
    assert not mark.exists()
    # Made of the same nets, whether `model` and `guide` are there before or after.
    x, made = pyro_aevb.data.load("digits").test.images[:5].float() / 16, []
    for name in ("MyVAE", "make", "Held"):
        torch.manual_seed(0)
        pair = load_pair(f"{mine / 'my_pair.py'}:{name}", {"width": 4})
        with pair.active():
            torch.manual_seed(1)
            made.append(pair.guide(x) or sum(v.sum() for v in pair.tensors().values()))
    assert made[0] == made[1] == made[2]


def test_modules_of_python_are_refused_without_importing_them(monkeypatch):
    for name in ("antigravity", "this", "antigravity:geohash"):
        monkeypatch.delitem(sys.modules, name.partition(":")[0], raising=False)
        with pytest.raises(UsageError, match="is part of Python"):
            load_pair(name)
        assert name.partition(":")[0] not in sys.modules


def test_a_study_scores_the_pair_that_it_names(mine, sent, tmp_path):
    """Whatever the settings in its directory say."""
    from pyro_aevb.studies.declare import Cell
    from pyro_aevb.studies.work import work

    settings = {"pair": f"{mine / 'my_pair.py'}:MyVAE", "data": "digits"}
    settings |= {"num_data": 20}
    scores = {"kernels": {"estimator": "parzen", "estimator_options": {"num_kernels": 20}}}
    values = {}
    for where in ("honest", "other"):
        cell = Cell("grid", "row", "column", 0, settings, (1,), {})
        assert work(cell, tmp_path / where, "cpu")[1] is None
        if where == "other":
            change(tmp_path / where / cell.path, pair=f"{sent / 'evil_pair.py'}:MyVAE")
        more = Cell("grid", "row", "column", 0, settings, (1,), scores)
        assert work(more, tmp_path / where, "cpu")[1] is None
        copy = tmp_path / where / f"{cell.path}-kernels"
        values[where] = pyro_aevb.Run(copy).results["metrics"]["parzen"]["value"]
    assert values["honest"] == values["other"] and not (tmp_path / "mark").exists()


# A file is executed once


LOGGED = "import pathlib\nwith open({log!r}, 'a') as log:\n    log.write('executed\\n')\n"


def executions(log):
    count = log.read_text().count("executed") if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def test_a_command_executes_a_file_once(tmp_path, capsys):
    log, file = tmp_path / "log", tmp_path / "logged.py"
    file.write_text(LOGGED.format(log=str(log)) + PAIR)
    words = [f"--pair={file}:MyVAE", "--data=digits", "--pair.width=4"]
    check(*words)
    assert executions(log) == 1 and "--pair.width 3" in capsys.readouterr().out
    fit(*QUICK, *words, f"--out={tmp_path / 'run'}")
    assert executions(log) == 1
    evaluate(tmp_path / "run")
    assert executions(log) == 1

    # As if the pair was made without a look at the file before.
    made = pyro_aevb.fit(
        f"{file}:MyVAE", "digits", {"width": 4}, epochs=1, out=str(tmp_path / "b"), **SMALL
    )
    assert log_likelihood(made.path) == log_likelihood(tmp_path / "run")


def test_a_file_that_changed_is_executed_anew(tmp_path):
    file, width = tmp_path / "changing.py", "width: int = 3):\n        super"
    file.write_text(PAIR)
    assert constructor(f"{file}:MyVAE")().decoder.in_features == 3
    for looks in (0, 2):  # of the same length, within the same second
        for n in (5, 7):
            file.write_text(PAIR.replace(width, width.replace("3", str(n))))
            for _ in range(looks):
                constructor(f"{file}:MyVAE")
            pair = load_pair(f"{file}:MyVAE")
            assert pair.model.__self__.decoder.in_features == n


def test_what_is_executed_is_what_stands_in_the_file(tmp_path):
    """Bytecode beside the file may be of anything."""
    import py_compile

    file, mark = tmp_path / "cached.py", tmp_path / "mark"
    file.write_text(MARKING.format(mark=str(mark)) + PAIR)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(file), invalidation_mode=mode)
    file.write_text(PAIR)
    assert load_pair(f"{file}:MyVAE", {"width": 2}).model.__self__.decoder.in_features == 2
    assert not mark.exists()


FUNCTIONS = """
whole = MyVAE()
model, guide = whole.model, whole.guide


class Shared:
    def __init__(self, width: int = 3):
        self.model, self.guide = model, guide
"""


@pytest.mark.parametrize("source", ["{file}", "{file}:Shared"])
def test_a_second_pair_of_a_file_starts_anew(source, tmp_path):
    """Modules that a file makes when it is executed belong to one pair, and follow the seed."""
    file = tmp_path / "functions.py"
    file.write_text(PAIR + FUNCTIONS)
    source, made = source.format(file=file), []
    for look in (False, True, False):
        torch.manual_seed(5)
        if look:
            constructor(source)
            torch.manual_seed(5)
        pair = load_pair(source)
        whole = pair.model.__self__
        made.append({name: value.clone() for name, value in whole.state_dict().items()})
        for value in whole.parameters():
            value.data.add_(1.0)
    for other in made[1:]:
        assert all(torch.equal(other[name], made[0][name]) for name in made[0])
