"""What goes wrong, done on purpose: a part of what ``python -m benchmarks.faults`` does."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from filelock import FileLock, Timeout
from harness import refusal
from markdown_it import MarkdownIt

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.data.corruption import make_corruption
from pyro_aevb.data.matlab import check_matlab
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.reports.figures import drawn
from pyro_aevb.reports.tables import csv_table, latex_table, literal_table
from pyro_aevb.runs.checkpoint import load_checkpoint
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.settings import read_settings
from pyro_aevb.runs.writing import NotWritten, is_signed, sealed, signed, unsealed, write_whole
from pyro_aevb.training.objectives import make_objective

PARTS = {
    "signals": 0.012,
    "calls of fit": 1 / 150,
    "damage": 0.02,
    "forgery": 1 / 200,
    "kinds": 0.02,
    "files": 0.02,
    "settings": 0.02,
    "commands": 0.01,
    "torchrun": 0.01,
    **({"guided files": 0.01} if find_spec("atheris") else {}),
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a compiler of C")
def test_promises_are_kept(tmp_path):
    command = [sys.executable, "-m", "benchmarks.faults", "--out", str(tmp_path)]
    shares = [f"{name}={share}" for name, share in PARTS.items()]
    done = subprocess.run([*command, "--only", *shares], capture_output=True, text=True)
    parts = json.loads((tmp_path / "faults.json").read_text())["parts"]
    assert done.returncode == 0 and parts.keys() == PARTS.keys(), done.stdout + done.stderr
    for name, entry in parts.items():
        assert entry["tried"] > 5 * (name != "torchrun") and not entry["failures"], done.stdout


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
    for name in ("www.a.b", "a@b.co", "# big", "> q", "~~s~~", "- a", "1. a", "10. a", "--"):
        text = literal_table(name, ["c"], [[name]])
        tokens = MarkdownIt("commonmark").enable("strikethrough").parse(text)
        kinds = {token.type for token in tokens} - {"inline", "paragraph_open", "paragraph_close"}
        inline = {child.type for token in tokens for child in token.children or ()}
        assert not kinds and inline <= {"text", "text_special", "softbreak"}
        assert "www." not in text and "a@" not in text
    lines = csv_table([{"run": "=1+1", "x": -1.5, "y": "-1.5 ± 1", "z": "-c"}]).splitlines()
    assert lines[1] == "'=1+1,-1.5,-1.5 ± 1,'-c"
    for word in (
        "- 1+cmd|'calc'!A0",
        "-1-2",
        "-1%",
        "-1^2",
        "-1 +2",
        "-1 -2",
        "-\n=1",
        "\uff1d1+1",
        " =1",
        "@a",
    ):
        assert next(csv.reader(io.StringIO(csv_table([{word: 1}]), newline=""))) == ["'" + word]
    for word in ("-1.5", "-1e-3", "-1.5;-2.5", "a-b", "-1,234"):
        assert next(csv.reader(io.StringIO(csv_table([{word: 1}])))) == [word]


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


def edited(run, tmp_path, name, change):
    """A copy of a run with one of its files changed."""
    path = shutil.copytree(run.path, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
    (path / name).write_bytes(change((path / name).read_bytes()))
    return path


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def results_with(change):
    """A change of results.json that has no digest, as an earlier version wrote it."""

    def changed(content):
        entries = json.loads(content)
        del entries["sha256"], entries["arrays_sha256"]
        change(entries)
        return json.dumps(entries).encode()

    return changed


HOW = {"num_samples": 2, "num_data": 4, "proposal": "guide", "show": False}


def test_damaged_results_are_kept_where_they_are_written_anew(run, tmp_path):
    pyro_aevb.evaluate(run, "prediction", {"num_draws": 1}, show=False)
    pyro_aevb.evaluate(run, "parzen", {"num_kernels": 5}, show=False)
    pyro_aevb.evaluate(run, split="valid", **HOW)
    for name in ("results.json", "results.nc"):
        path = edited(run, tmp_path, name, flipped)
        damaged = (path / name).read_bytes()
        of_values = name == "results.nc"
        for how in ({"split": "valid", **HOW}, {"estimator": "parzen", "show": False}):
            if of_values and "split" in how:
                continue  # it is a file of the test split
            with pytest.raises(UsageError, match=rf"{name} is damaged.*evaluate the run again"):
                pyro_aevb.evaluate(path, **how)
            assert (path / name).read_bytes() == damaged
        found = pyro_aevb.evaluate(path, **HOW)
        assert any(f"{name} was damaged" in note for note in found["notes"])
        # What is known without the values of each datum stays.
        assert ("parzen" in found["metrics"]) == ("rmse" in found["metrics"]) == of_values
        assert ("valid" in Run(path).results.get("splits", {})) == of_values
        assert (path / f"{name}.damaged").read_bytes() == damaged
        Run(path).per_datum("predictive", "log_likelihood")
        with pytest.raises(UsageError, match="no per-datum parzen"):
            Run(path).per_datum("parzen", "parzen")
        (path / name).write_bytes(damaged)
        pyro_aevb.fit(out=str(path), resume=True, epochs=2, show=False)
        assert (path / f"{name}.damaged-2").read_bytes() == damaged
        assert Run(path).results["epochs"] == 2


@pytest.mark.parametrize("estimator", ["importance", "parzen"])
def test_what_ends_between_values_and_results_is_no_damage(estimator, run, tmp_path, monkeypatch):
    from pyro_aevb.runs import scored

    path = edited(run, tmp_path, "history.csv", lambda content: content)
    pyro_aevb.evaluate(path, "parzen", {"num_kernels": 5}, show=False)
    before = Run(path).results["metrics"]
    values = Run(path).per_datum("parzen", "parzen")
    real = scored.write_whole

    def ends(file, content):
        real(file, content)
        if file.name == "results.nc":
            raise KeyboardInterrupt

    def ends_before(file, content):
        if file.name == "results.nc":
            raise KeyboardInterrupt
        real(file, content)

    how = HOW | {"seed": 5} if estimator == "importance" else {"show": False, "seed": 5}
    monkeypatch.setattr(scored, "write_whole", ends)
    with pytest.raises(KeyboardInterrupt):
        pyro_aevb.evaluate(path, estimator, **how)
    monkeypatch.undo()
    left = Run(path)
    assert left.results["metrics"] == before
    # Values of the results that were not written are not taken for those of the others.
    if estimator == "importance":
        np.testing.assert_array_equal(left.per_datum("parzen", "parzen"), values)
        with pytest.raises(UsageError, match="not of the results beside it"):
            left.per_datum("predictive", "log_likelihood")
    else:
        left.per_datum("predictive", "log_likelihood")
        with pytest.raises(UsageError, match="not of the results beside it"):
            left.per_datum("parzen", "parzen")
    # A small write keeps what is known, and nothing is added to a mixture.
    pyro_aevb.evaluate(path, corruption="masking", num_samples=2, num_data=4, show=False)
    left.check_arrays()
    if estimator == "importance":
        with pytest.raises(UsageError, match="another scoring ended before its results were wri"):
            pyro_aevb.evaluate(path, "prediction", {"num_draws": 1}, show=False)
    # Nor does a second end lose it.
    monkeypatch.setattr(scored, "write_whole", ends_before)
    with pytest.raises(KeyboardInterrupt):
        pyro_aevb.evaluate(path, estimator, **{**how, "seed": 6})
    monkeypatch.undo()
    left.check_arrays()
    after = pyro_aevb.evaluate(path, estimator, **how)
    assert not any("damaged" in note for note in after["notes"])
    assert "arrays_next" not in json.loads((path / "results.json").read_text())
    Run(path).per_datum("predictive", "log_likelihood")
    Run(path).per_datum("parzen", "parzen")


def test_a_training_that_began_meanwhile_is_not_trained_over(run, tmp_path, monkeypatch):
    out, real = tmp_path / "twice", Run.alone

    def late(self, resume=True):
        if not out.exists():
            shutil.copytree(run.path, out)  # another one began and ended since it looked
        return real(self, resume)

    monkeypatch.setattr(Run, "alone", late)
    before = (run.path / "checkpoint.pt").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        pyro_aevb.fit("VAE", "digits:60", {"hidden": [4]}, epochs=1, out=str(out), seed=2, **HOW)
    assert (out / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["metrics"].update(elbo=3),
        lambda e: e["metrics"]["elbo"].update(value="w"),
        lambda e: e["metrics"]["kl"].update(standard_error=[1]),
        lambda e: e.update(notes=3),
        lambda e: e.update(notes=[3]),
        lambda e: e.update(num_data="w"),
        lambda e: e.update(settings=3),
        lambda e: e.update(settings={"importance": 3}),
        lambda e: e.update(corrupted={"noise": 3}),
        lambda e: e.update(splits=3),
    ],
)
def test_results_of_another_kind_are_refused_in_a_line(change, run, tmp_path):
    path = edited(run, tmp_path, "results.json", results_with(change))
    for what in (pyro_aevb.report, lambda path, show: pyro_aevb.compare([path, run.path])):
        with pytest.raises(UsageError, match="results.json is damaged"):
            what(path, show=False)


def test_arrays_without_a_digest_in_the_results_have_their_own(run, tmp_path):
    path = edited(run, tmp_path, "results.json", results_with(lambda e: None))
    content, refused = (path / "results.nc").read_bytes(), 0
    for place in np.linspace(8, len(content) - 80, 40).astype(int):
        changed = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
        (path / "results.nc").write_bytes(changed)
        with pytest.raises(UsageError, match="results.nc is damaged"):
            Run(path).per_datum("predictive", "log_likelihood")
        (path / "results.nc").write_bytes(changed.rpartition(b"\nsha256 ")[0])
        try:
            Run(path).per_datum("predictive", "log_likelihood")
        except UsageError:
            refused += 1
    assert refused > 3  # of an earlier version's file: read, or refused in a line


@pytest.mark.parametrize(
    "line, said",
    [
        ("pair_parameters: [1, 2]", "settings.yaml: pair_parameters is .* it takes"),
        ("pair_parameters: word", "pair_parameters is 'word'"),
        ("seed: word", "seed is 'word'; it takes a whole number"),
        ("memory: many", "memory is 'many'"),
        ("patience: [1]", r"patience is \[1\]"),
        ("patience: .nan", "patience is nan"),
        ("batch_size: .inf", "batch_size is inf"),
        ("binarize: often", "binarize"),
        ('data: "a\\0b"', "data holds a character that no name of a file has"),
        ('out: "a\\ud800b"', "out holds a character"),
    ],
)
def test_settings_of_another_kind_are_refused_in_a_line(line, said, run, tmp_path):
    def change(content):
        lines = content.decode().splitlines()[1:-1]  # changed on purpose, as is documented
        name = line.partition(":")[0]
        kept, skip = [], False
        for one in lines:
            skip = one.startswith(name) or (skip and one.startswith((" ", "-")))
            kept += [] if skip else [one]
        return "\n".join([*kept, line]).encode() + b"\n"

    path = edited(run, tmp_path, "settings.yaml", change)
    for what in (lambda: pyro_aevb.evaluate(path, **HOW), lambda: Run(path).settings):
        with pytest.raises(UsageError, match=said):
            what()


def test_a_column_of_the_history_that_is_called_otherwise(run, tmp_path):
    path = edited(
        run,
        tmp_path,
        "history.csv",
        lambda c: c.replace(b"images_per_second", b"images_per_secone"),
    )
    with pytest.raises(UsageError, match="history.csv is damaged; remove it"):
        pyro_aevb.evaluate(path, **HOW)


def test_files_that_a_person_names_are_written_where_links_and_pipes_lead(run, tmp_path):
    target, link, pipe = tmp_path / "target.html", tmp_path / "link.html", tmp_path / "pipe"
    target.write_text("before")
    link.symlink_to(target)
    pyro_aevb.report(run, out=str(link), show=False)
    assert link.is_symlink() and "<html" in target.read_text()
    os.mkfifo(pipe)
    with (tmp_path / "read.html").open("wb") as read:
        reader = subprocess.Popen(["cat", pipe], stdout=read)
        pyro_aevb.report(run, out=str(pipe), show=False)
        assert reader.wait(60) == 0
    assert b"<html" in (tmp_path / "read.html").read_bytes() and pipe.is_fifo()


def test_names_are_shown_as_they_are_in_a_terminal(run, tmp_path, capsys):
    for name in ("a[red]b", "[b]x", ":smile:"):
        shutil.copytree(run.path, tmp_path / name)
    pyro_aevb.compare([tmp_path / name for name in ("a[red]b", "[b]x", ":smile:")])
    shown = capsys.readouterr().out
    assert "a[red]b" in shown and "[b]x" in shown and ":smile:" in shown
    (tmp_path / "q[").mkdir()
    np.save(tmp_path / "q[" / "b].npy", np.random.default_rng(0).random((30, 6), np.float32))
    pyro_aevb.check("VAE", str(tmp_path / "q[" / "b].npy"), {"likelihood": "gaussian"})
    assert "b].npy" in capsys.readouterr().out.replace("\n", "")


def test_a_hostile_pickle_in_a_whole_zip_file_is_refused_in_a_line(run, tmp_path):
    import zipfile

    path = shutil.copytree(run.path, tmp_path / "hostile")
    with zipfile.ZipFile(path / "checkpoint.pt") as file:
        parts = {name: file.read(name) for name in file.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    rng, refused = np.random.default_rng(0), 0
    for trial in range(60):
        content = bytearray(parts[pickled]) if trial else bytearray(b"\x80\x02.")
        for place in rng.integers(0, len(content), 2 if trial else 0):
            content[place] = rng.integers(256)
        with zipfile.ZipFile(path / "checkpoint.pt", "w") as file:
            for name, part in (parts | {pickled: bytes(content)}).items():
                file.writestr(name, part)
        try:
            load_checkpoint(path / "checkpoint.pt")
        except UsageError as error:
            refused += "\n" not in str(error)
    assert refused > 30


def test_settings_that_look_like_numbers_and_numbers_of_numpy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = {"epochs": 1, "compile": "off", **HOW, "out": "1e-3", "drop_last": np.bool_(False)}
    how |= {"batch_size": np.int64(30), "lr": np.float64(1e-3)}
    run = pyro_aevb.fit("VAE", "digits:60", {"hidden": [4], "activation": np.str_("relu")}, **how)
    assert run.settings["out"] == "1e-3" and run.settings["batch_size"] == 30
    assert run.settings["drop_last"] is False
    assert pyro_aevb.evaluate("1e-3", **HOW)["num_data"] == 4
    # As an earlier version kept them: the name of the type alone.
    lines = (run.path / "settings.yaml").read_text().splitlines()[1:-1]
    old = {"batch_size": "<int64>", "out": "1e-3"}
    kept = [line for line in lines if line.partition(":")[0] not in old]
    kept += [f"{name}: {value}" for name, value in old.items()]
    (run.path / "settings.yaml").write_text("\n".join(kept) + "\n")
    parameters = {"hidden": [4], "activation": "relu"}
    again = pyro_aevb.fit("VAE", "digits:60", parameters, **{**how, "epochs": 2}, resume=True)
    assert len(again.history) == 2


def test_results_without_digests_have_them_before_their_values_change(run, tmp_path, monkeypatch):
    from pyro_aevb.runs import scored

    path = edited(run, tmp_path, "results.json", results_with(lambda e: None))
    real = scored.write_whole

    def ends(file, content):
        real(file, content)
        if file.name == "results.nc":
            raise KeyboardInterrupt

    monkeypatch.setattr(scored, "write_whole", ends)
    with pytest.raises(KeyboardInterrupt):
        pyro_aevb.evaluate(path, seed=5, **HOW)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="not of the results beside it"):
        Run(path).per_datum("predictive", "log_likelihood")


def test_a_scoring_of_weights_that_were_trained_further_is_not_written(run, tmp_path, monkeypatch):
    path = edited(run, tmp_path, "history.csv", lambda content: content)
    before = (path / "results.json").read_bytes()
    longer = [dict(row) for row in Run(path).history] + [{**Run(path).history[0], "epoch": 2}]
    real = Scorer.__call__

    def meanwhile(self, *args, **kwargs):
        Run(path).write_history(longer)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Scorer, "__call__", meanwhile)
    with pytest.raises(UsageError, match="was trained further while it was scored"):
        pyro_aevb.evaluate(path, **HOW)
    assert (path / "results.json").read_bytes() == before


def test_an_estimator_of_no_numbers_is_a_line_and_changes_nothing(run):
    before = (run.path / "results.json").read_bytes()
    bad = pyro_aevb.Estimator("bad", lambda prepared, test, work: ({"bad": {"value": [1.0]}}, {}))
    with pytest.raises(UsageError, match="these are no results: bad has"):
        pyro_aevb.evaluate(run, bad, show=False)
    assert (run.path / "results.json").read_bytes() == before


@pytest.mark.parametrize("line", ["kl_warm_up: 10.0", "drop_last: 1", "patience: false"])
def test_settings_as_earlier_versions_took_them_are_read(line, run, tmp_path):
    name = line.partition(":")[0]

    def change(content):
        lines = [one for one in content.decode().splitlines()[1:-1] if not one.startswith(name)]
        return "\n".join([*lines, line]).encode() + b"\n"

    assert name in Run(edited(run, tmp_path, "settings.yaml", change)).settings
