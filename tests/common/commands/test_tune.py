"""The parts of a search of settings; `tests/tasks/test_tune.py` runs whole searches."""

import csv
import dataclasses
import json
import random
import textwrap
import types

from common.commands import tune
from common.commands.config import Choice, Count, Dropout, LearningRate, Range, RunConfig, ranges
from common.commands.tune import Ended, Trained
from common.errors import InputError, TrainingError
from common.training import checkpoint

import pytest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    learning_rate: LearningRate = 1e-3
    units: Count = 8
    dropout: Dropout = 0.1
    cell: str = "lstm"


@pytest.fixture(autouse=True)
def unlocked(monkeypatch):
    monkeypatch.setattr(checkpoint, "_LOCKED", {})


def test_a_field_is_searched_if_its_type_says_so():
    assert ranges(Config) == {
        "learning_rate": Range(5e-4, 1e-2, log=True),
        "dropout": Range(0.0, 0.6),
    }


def test_values_are_drawn_evenly_on_their_scale():
    generator = random.Random(0)
    linear = [Range(0.2, 0.6).draw(generator) for _ in range(2000)]
    assert 0.2 <= min(linear) < 0.21 and 0.59 < max(linear) <= 0.6
    assert sum(value < 0.3 for value in linear) / 2000 == pytest.approx(0.25, abs=0.03)
    log = [Range(1e-4, 1e-2, log=True).draw(generator) for _ in range(2000)]
    assert min(log) >= 1e-4 and max(log) <= 1e-2
    assert sum(value < 1e-3 for value in log) / 2000 == pytest.approx(0.5, abs=0.03)
    assert all(len(f"{value:g}".replace("0.", "").strip("0")) <= 3 for value in linear)
    assert {Choice((1, 2, 3)).draw(generator) for _ in range(50)} == {1, 2, 3}


def test_the_first_trial_is_the_preset_and_more_trials_begin_with_the_same():
    few, many = (tune.draw(ranges(Config), trials, seed=3) for trials in (4, 9))
    assert few[0] == {} and many[:4] == few and len(many) == 9
    assert all(row.keys() == {"learning_rate", "dropout"} for row in many[1:])
    assert len({row["dropout"] for row in many[1:]}) == 8
    assert tune.draw(ranges(Config), 4, seed=4) != few


def test_only_the_same_search_is_resumed(tmp_path):
    trials = [{}, {"units": 8}]
    tune.prepare(tmp_path, ["--data", "a"], trials, resume=True)  # nothing to resume yet
    tune.write_ended(tmp_path, Ended(0, {}, "finished", [{"val_f1": 0.5}]))
    tune.prepare(tmp_path, ["--data", "a"], [*trials, {"units": 16}], resume=True)
    assert tune.read_ended(tmp_path, 0) == Ended(0, {}, "finished", [{"val_f1": 0.5}])
    assert tune.read_ended(tmp_path, 1) is None
    for words, drawn in ((["--data", "b"], trials), (["--data", "a"], [{}, {"units": 9}])):
        with pytest.raises(InputError, match=r"search.json: this search was made with --data a:"):
            tune.prepare(tmp_path, words, drawn, resume=True)
    tune.prepare(tmp_path, ["--data", "b"], trials, resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.LOCK, "search.json"]


def test_one_search_at_a_time_runs_in_a_folder(tmp_path, monkeypatch):
    tune.prepare(tmp_path, [], [{}], resume=False)
    monkeypatch.setattr(checkpoint, "_LOCKED", {})  # as in another process
    with pytest.raises(InputError, match="another training run uses this folder"):
        tune.prepare(tmp_path, [], [{}], resume=False)


def log(*values):
    return [{"epoch": k + 1, "val_score": value} for k, value in enumerate(values)]


TRIALS = (
    Ended(0, {}, "finished", log(0.1, 0.5, 0.4)),
    Ended(1, {"units": 8, "dropout": 0.2}, "stopped", log(0.3)),
    Ended(2, {"units": 16, "dropout": 0.3}, "failed", log(0.9), "the loss is nan"),
    Ended(3, {"units": 32, "dropout": 0.1}, "finished", log(0.2, 0.6, 0.7)),
)


@pytest.mark.parametrize(("mode", "order"), [("max", [3, 0, 1, 2]), ("min", [0, 3, 1, 2])])
def test_trials_are_ranked_by_their_best_epoch_and_failed_ones_are_last(mode, order):
    ranked = tune.ranked(TRIALS, "val_score", mode)
    assert [trial.number for trial in ranked] == order
    assert TRIALS[0].best("val_score", mode) == ((0.5, 2) if mode == "max" else (0.1, 1))


def trained(mode="max"):
    return Trained("ner", "tasks.ner.train", lambda words: Config(), "score", mode, ())


def test_the_report_has_a_table_a_plot_and_flags_to_paste(tmp_path, capsys):
    for trial in TRIALS:
        tune.write_ended(tmp_path, trial)
    tune.report_trials(trained(), ["--data", "my file.conll"], tmp_path, 4)
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[0] == "| trial | score | epoch | epochs | state | units | dropout |"
    assert lines[2] == "| 3 | 0.7000 | 3 | 3 | finished | 32 | 0.1 |"
    assert lines[3] == "| 0 | 0.5000 | 2 | 3 | finished | preset | preset |"
    assert lines[5].startswith("| 2 |  |  | 1 | the loss is nan |")
    command = "python -m tasks.ner.train --data 'my file.conll' --units 32 --dropout 0.1"
    assert lines[-1] == command
    result = json.loads(last)
    assert (result["best"], result["preset"], result["failed"]) == (0.7, 0.5, 1)
    assert result["flags"] == {"units": 32, "dropout": 0.1}
    with open(tmp_path / tune.TABLE, encoding="utf-8") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["3", "0", "1", "2"]
    assert (tmp_path / tune.PLOT).read_bytes().startswith(b"\x89PNG")


def test_the_preset_may_be_best(tmp_path, capsys):
    for trial in TRIALS:
        tune.write_ended(tmp_path, trial)
    tune.report_trials(trained("min"), [], tmp_path, 4)
    assert "\npython -m tasks.ner.train  # no trial is better than the preset\n" in (
        capsys.readouterr().out
    )


# A training of an instant, which writes the log of a run as its flags say.
SCRIPT = """
    import argparse, pathlib, sys, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--units", type=int, default=50)
    flags = parser.parse_args()
    log = pathlib.Path(flags.output, "x", "run", "log.csv")
    rows = ["epoch,loss,val_f1"]
    for epoch in range(1, 5):
        time.sleep(0.3)
        if flags.units == 130 and epoch == 3:
            sys.exit("error: the loss is nan")
        rows.append(f"{epoch},0.5,{flags.units + epoch}")
        log.with_suffix(".new").write_text("\\n".join(rows))
        log.with_suffix(".new").replace(log)
        if flags.units == 90 and epoch == 3:
            sys.exit()  # it has stopped early
    time.sleep(60)  # it would export now
"""


@pytest.mark.slow
@pytest.mark.distribution
def test_trials_end_finished_stopped_or_failed_and_leave_only_their_results(tmp_path, capfd):
    from common.commands import trials

    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    folder = tmp_path / "search"
    folder.mkdir()
    flags = [{}, {"units": 130}, {"units": 2}, {"units": 80}, {"units": 90}, {"units": 3}]
    command = [str(tmp_path / "train.py")]
    plan = trials.Plan(str(folder), command, "x", flags, "val_f1", "max", epochs=4)
    trials.run(plan, workers=1, address=None)
    ended = [tune.read_ended(folder, number) for number in range(6)]
    states = ["finished", "failed", "stopped", "finished", "finished", "stopped"]
    assert [trial.state for trial in ended] == states
    assert [len(trial.log) for trial in ended] == [4, 2, 1, 4, 3, 1]
    assert ended[1].error == "the loss is nan (exit 1)"
    assert ended[3].best("val_f1", "max") == (84, 4)
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}.json" for n in range(6)]
    # Lines of gRPC, on which Ray is built, may stand between ours.
    said = [line for line in capfd.readouterr().err.splitlines() if "fork_posix.cc" not in line]
    assert "4 of 6: trial 3 finished after 4 epochs, f1 84.0000" in said
    assert len([line for line in said if " of 6: trial " in line]) == len(said) == 6
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    (folder / "5.json").unlink()
    trials.run(plan, workers=1, address=None)  # only that trial runs again
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())][:5] == before[:5]
    assert tune.read_ended(folder, 5) == ended[5]


@pytest.mark.distribution
def test_the_preset_is_trained_to_its_end_even_if_it_is_worst():
    from common.commands import trials

    plan = trials.Plan("", [], "x", [{}, {}, {}, {}], "val_f1", "max", epochs=4)
    scheduler = trials.Scheduler(plan)
    runs = [types.SimpleNamespace(trial_id=n, config={"number": int(n)}) for n in "0123"]
    for run in runs:
        scheduler.on_trial_add(None, run)

    def act(number, epoch, value):
        result = {"training_iteration": epoch, "val_f1": value}
        return scheduler.on_trial_result(None, runs[number], result)

    assert [act(number, 1, 0.9) for number in (2, 3)] == ["CONTINUE", "CONTINUE"]
    assert act(1, 1, 0.1) == "STOP"
    assert [act(0, epoch, 0.1) for epoch in (1, 2, 3, 4)] == [*["CONTINUE"] * 3, "STOP"]


def test_a_search_of_which_all_trials_failed_is_an_error(tmp_path):
    tune.write_ended(tmp_path, Ended(0, {}, "failed", [], "no such file"))
    with pytest.raises(TrainingError, match="all 1 trials failed; the first one: no such file"):
        tune.report_trials(trained(), [], tmp_path, 1)
