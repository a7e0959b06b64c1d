"""What goes wrong, done on purpose: a part of what ``python -m benchmarks.faults`` does."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock, Timeout
from harness import refusal

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.data.corruption import make_corruption
from pyro_aevb.data.matlab import check_matlab
from pyro_aevb.errors import UsageError
from pyro_aevb.reports.figures import drawn
from pyro_aevb.reports.tables import csv_table, latex_table, literal_table
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.settings import read_settings
from pyro_aevb.runs.writing import NotWritten, is_signed, sealed, signed, unsealed, write_whole
from pyro_aevb.training.objectives import make_objective

PARTS = {
    "signals": 0.012,
    "calls of fit": 1 / 60,
    "calls of evaluate": 1 / 80,
    "calls of compare": 1 / 100,
    "calls of study": 1 / 150,
    "damage": 0.04,
    "forgery": 1 / 90,
    "kinds": 0.05,
    "files": 0.04,
    "settings": 0.05,
    "commands": 0.02,
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a compiler of C")
def test_promises_are_kept(tmp_path):
    command = [sys.executable, "-m", "benchmarks.faults", "--out", str(tmp_path)]
    shares = [f"{name}={share}" for name, share in PARTS.items()]
    done = subprocess.run([*command, "--only", *shares], capture_output=True, text=True)
    parts = json.loads((tmp_path / "faults.json").read_text())["parts"]
    assert done.returncode == 0 and parts.keys() == PARTS.keys(), done.stdout + done.stderr
    assert all(entry["tried"] > 5 and not entry["failures"] for entry in parts.values()), (
        done.stdout
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    how = {"num_samples": 2, "num_data": 4, "proposal": "guide", "show": False, "compile": "off"}
    out = str(tmp_path_factory.mktemp("faults") / "run")
    return pyro_aevb.fit("VAE", "digits:60", {"hidden": [4]}, epochs=1, out=out, **how)


def test_a_run_without_digests_is_read_with_a_note(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "old")
    text = (path / "settings.yaml").read_text()
    (path / "settings.yaml").write_text("".join(text.splitlines(keepends=True)[1:-1]))
    stored = json.loads((path / "results.json").read_text())
    del stored["sha256"], stored["arrays_sha256"]
    (path / "results.json").write_text(json.dumps(stored))
    old = Run.open(path)
    assert old.results["metrics"] == run.results["metrics"]
    assert old.restore().prepared.notes[0].startswith(f"note: {path} has no digests")
    np.testing.assert_array_equal(
        old.per_datum("predictive", "log_likelihood"),
        run.per_datum("predictive", "log_likelihood"),
    )
    assert not run.unsigned


def test_per_datum_values_of_other_results_are_refused(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "mixed")
    other = Run.open(path)
    stored = other.results
    stored["arrays_sha256"] = "0" * 64
    other.write_results(stored)
    with pytest.raises(UsageError, match="results.nc is damaged, or not of the results beside it"):
        other.per_datum("predictive", "log_likelihood")


def test_an_edited_file_says_how_it_may_be_kept(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "edited")
    settings = path / "settings.yaml"
    settings.write_text(settings.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(UsageError, match="not as it was written: .*remove its first and last line"):
        pyro_aevb.evaluate(str(path))


def test_the_results_are_locked_while_they_are_changed(run, tmp_path, monkeypatch):
    other = Run.open(shutil.copytree(run.path, tmp_path / "locked"))
    held, write = [], Run.write_results

    def watched(self, results):
        with pytest.raises(Timeout):
            FileLock(self.path / "results.lock", timeout=0).acquire()
        held.append(results)
        write(self, results)

    monkeypatch.setattr(Run, "write_results", watched)
    other.add("mine", {}, {"m": {"value": 1.0}}, {"m": np.ones(4)})
    other.add_section("looks", "2", {"settings": {}, "metrics": {}})
    pyro_aevb.evaluate(other.path, num_samples=2, num_data=4, proposal="guide", show=False)
    assert len(held) >= 4  # the scores, and what compares the bounds


def test_a_figure_that_cannot_be_written_is_no_note(tmp_path):
    """As it is where it cannot be drawn: the disk is full for the numbers, too."""
    undrawn = []
    with pytest.raises(NotWritten), drawn("a.png", undrawn):
        write_whole(tmp_path / "nowhere" / "a.png", b"")
    with drawn("a.png", undrawn):
        raise ValueError("no such picture")
    assert len(undrawn) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_show_a_letter_is_no_reason_to_end(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)

    def say():
        print("a ± b ━")

    run_command(say, [])
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) in ("a ? b ?\n", "a ± b ?\n")


def test_too_little_memory_is_a_line(capsys):
    def fill():
        raise MemoryError

    assert "not enough memory" in refusal(lambda: run_command(fill, []), capsys)


@pytest.mark.parametrize("value", [{}, {"rate": 0.5}, [1]])
def test_an_objective_and_a_corruption_are_names(value):
    with pytest.raises(UsageError, match="--objective is .*; it takes a name"):
        make_objective(value)
    with pytest.raises(UsageError, match="--corruption is .*; it takes a name"):
        make_corruption(value, None)


def test_settings_are_utf8_whatever_the_locale(tmp_path):
    """A title in letters that a locale does not have, written and read in it."""
    path = tmp_path / "run"
    code = rf"""if True:
        from pyro_aevb.runs.run import Run
        run = Run({str(path)!r})
        run.write_settings({{"pair": "\u00fc", "data": "\u4e2d"}})
        assert run.settings == {{"pair": "\u00fc", "data": "\u4e2d"}} and not run.unsigned
    """
    how = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=how, check=True)
    assert "ü" in (path / "settings.yaml").read_text("utf-8")


def test_digests():
    text = "a: 1\nb: 2\n"
    whole = signed(text)
    assert is_signed(whole) is True and is_signed(text) is None
    assert is_signed(whole.replace("1", "3", 1)) is False
    lines = whole.splitlines(keepends=True)
    for at in range(1, 40):  # both lines cut in two, and the halves exchanged
        assert is_signed(lines[0][at:] + text + lines[0][:at]) is False
    assert is_signed("".join(lines[:-1])) is False and is_signed("".join(lines[1:])) is False
    entries = {"a": 0.1, "b": [1, None, "ü"], "c": {"d": -0.0}}
    assert unsealed(sealed(entries)) == entries == unsealed(json.dumps(entries))
    with pytest.raises(ValueError, match="not what was written"):
        unsealed(sealed(entries).replace("0.1", "0.2"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_that_a_run_was_ended_in_before_its_first_file_is_taken_up(resume, tmp_path):
    for names in ((), ("training.lock",), ("training.lock", "settings.yaml.part")):
        path = tmp_path / str(len(names))
        path.mkdir()
        for name in names:
            (path / name).touch()
        assert Run.create(path, "name", resume).path == path
    (path / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists and is not a run"):
        Run.create(path, "name", resume)


@pytest.mark.parametrize(
    "name, path",
    [("VAE-../../up.npy", "VAE-..-up.npy"), ("VAE-/etc/x", "VAE--etc-x"), ("a:6", "a-6")],
)
def test_the_default_directory_lies_in_runs(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(Run.create(None, name, False).path) == f"runs/{path}"


def test_names_are_words_in_tables():
    title, names = "a\n\\input{x}", ["<img src=x>", "[a](http://b)", r"\[a\](b)", "c|d"]
    text = literal_table(title, names, [["-1.5", "`x`", "@S", "2"]], ["<b>"])
    assert "<" not in text and r"\\\[a\\\](b)" in text and text.startswith(r"a \\input")
    assert r"c\|d" in text and r"\`x\`" in text and "http\\://b" in text
    assert latex_table(title, names, []).splitlines()[1].startswith(r"\begin{tabular}")
    lines = csv_table([{"run": "=1+1", "x": -1.5, "y": "-1.5 ± 1", "z": "-c"}]).splitlines()
    assert lines[1] == "'=1+1,-1.5,-1.5 ± 1,'-c"


def test_matlab_files_with_an_element_of_no_type_are_refused(tmp_path):
    from scipy.io import savemat

    for compressed in (False, True):
        stream = io.BytesIO()
        savemat(stream, {"x": np.eye(3), "y": {"z": ["a", 1]}}, do_compression=compressed)
        path = tmp_path / "a.mat"
        path.write_bytes(stream.getvalue())
        check_matlab(path)
    content = bytearray(stream.getvalue())
    content[128] = 130
    path.write_bytes(content)
    with pytest.raises(ValueError, match="an element is of type 130"):
        check_matlab(path)


def test_settings_that_name_themselves_again_and_again_are_refused(tmp_path):
    path, names = tmp_path / "a.yaml", "abcdefgh"
    lines = ["a: &a [x, x]"]
    lines += [
        f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]" for x, y in zip(names, names[1:], strict=False)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="more than 100,000 values"):
        read_settings(path)
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="not readable YAML"):
        read_settings(path)
