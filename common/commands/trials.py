"""The trials of `common.commands.tune` on a Ray cluster; this module needs Ray."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from common.commands import cluster
from common.commands.tune import Ended, Flags, read_ended, read_log, to_words, write_ended
from common.errors import TrainingError
from common.files import locked
from common.messages import say
from common.training.checkpoint import LOCK, LOG

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

POLL = 0.5  # seconds between two looks at the log of a run
REDUCTION = 3  # after each rung of the scheduler, one of three trials goes on


@dataclasses.dataclass(frozen=True)
class Plan:
    """All trials of a search.

    Attributes:
      folder: of the search, at the same path on all machines.
      command: the words after `python` of the training, without the values of a trial.
      task: name of the task.
      flags: the values of each trial.
      column: of the run's log, by which trials are compared.
      mode: whether a larger or a smaller value is better.
      epochs: of a whole training.
    """

    folder: str
    command: Sequence[str]
    task: str
    flags: Sequence[Flags]
    column: str
    mode: Literal["max", "min"]
    epochs: int

    def output(self, number: int) -> Path:
        """Return the `--output` of a trial; it is removed when the trial has ended."""
        return Path(self.folder, str(number))

    def run_folder(self, number: int) -> Path:
        """Return the folder of the run of a trial, which holds its log."""
        return self.output(number) / self.task / "run"

    def stop_file(self) -> Path:
        """Return the file whose existence stops all trainings, on whatever machine they run."""
        return Path(self.folder, ".stop")

    def words(self, number: int) -> list[str]:
        """Return the words after `python` of a trial; a run that was interrupted is resumed."""
        own = to_words(self.flags[number])
        return [*self.command, *own, "--output", str(self.output(number)), "--resume"]


class Trial(tune.Trainable):
    """A training as Ray Tune sees it: a process, of which each step is an epoch.

    A trial that has ended before only reports its log again, so that the scheduler compares the
    others with it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the training."""
        self.plan, self.number = Plan(**config["plan"]), config["number"]
        self.last_lines: collections.deque[str] = collections.deque(maxlen=50)
        self.code: int | None = None
        self.process = cluster.Process()
        self.ended = read_ended(Path(self.plan.folder), self.number)
        if self.ended is not None:
            return
        run = self.plan.run_folder(self.number)
        run.mkdir(parents=True, exist_ok=True)
        with locked(run / LOCK):  # a training that lost its search ends at its next line
            pass
        # TensorFlow would use all cores in each process.
        cores = os.environ.get("OMP_NUM_THREADS", "1")
        self.process.start(
            self.plan.words(self.number), config["working"], {"TF_NUM_INTRAOP_THREADS": cores}
        )
        for work in (self._read, self._stop_on_demand):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        for line, code in self.process.output():
            self.last_lines.append(line)
            self.code = code

    def _stop_on_demand(self) -> None:
        # A thread of its own: after Ctrl-C, Ray may never call `step` again.
        while self.code is None:
            if self.plan.stop_file().exists():
                self.process.stop()
                return
            time.sleep(POLL)

    def _log(self) -> Sequence[Any]:
        if self.ended is not None:
            return self.ended.log
        return read_log(self.plan.run_folder(self.number) / LOG)

    def step(self) -> dict[str, Any]:
        """Wait for the end of an epoch; return its validation metric."""
        while True:
            is_over = self.ended is not None or self.code is not None
            rows = self._log()
            if len(rows) > self.iteration:
                return {self.plan.column: rows[self.iteration][self.plan.column], "over": False}
            if is_over or self.plan.stop_file().exists():
                break
            time.sleep(POLL)
        if not is_over:
            return {self.plan.column: None, "done": True}
        if self.code or not rows:
            self._fail(rows)
        return {self.plan.column: rows[-1][self.plan.column], "over": True, "done": True}

    def _fail(self, rows: Sequence[Any]) -> NoReturn:
        """Keep the last error of the training, and end the trial."""
        if self.ended is None:
            lines = [line for line in self.last_lines if line]
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            error = (errors or lines or ["no message"])[-1]
            flags = self.plan.flags[self.number]
            self.ended = Ended(self.number, flags, "failed", rows, f"{error} (exit {self.code})")
            write_ended(Path(self.plan.folder), self.ended)
        raise RuntimeError(self.ended.error)

    def cleanup(self) -> None:
        """Stop the training, and remove its files if its result is kept."""
        self.process.stop()
        if read_ended(Path(self.plan.folder), self.number) is not None:
            shutil.rmtree(self.plan.output(self.number), ignore_errors=True)


class Keeper(tune.Callback):
    """Write the file of each trial that ends, and say so."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.count = 0

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Keep the log of a trial that finished, or that the scheduler stopped."""
        self._keep(trial, "")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Keep the failure of a trial, which has written its error unless it was killed."""
        self._keep(trial, "its process was lost")

    def _keep(self, trial: Any, error: str) -> None:
        number = trial.config["number"]
        ended = read_ended(Path(self.plan.folder), number)
        if ended is None:
            log = read_log(self.plan.run_folder(number) / LOG)
            is_over = trial.last_result.get("over") or len(log) >= self.plan.epochs
            state = "failed" if error else "finished" if is_over else "stopped"
            ended = Ended(number, self.plan.flags[number], state, log, error)
            write_ended(Path(self.plan.folder), ended)
        self.count += 1
        if ended.state == "failed":
            outcome = f"failed: {ended.error}"
        else:
            value, _ = ended.best(self.plan.column, self.plan.mode)
            metric = self.plan.column.removeprefix("val_")
            outcome = f"{ended.state} after {len(ended.log)} epochs, {metric} {value:.4f}"
        say(f"{self.count} of {len(self.plan.flags)}: trial {number} {outcome}")


class Scheduler(AsyncHyperBandScheduler):
    """ASHA, but trial 0 is trained to its end: others are compared with the preset."""

    def __init__(self, plan: Plan):
        self.epochs = plan.epochs
        super().__init__(
            metric=plan.column,
            mode=plan.mode,
            max_t=plan.epochs,
            grace_period=max(1, plan.epochs // REDUCTION**2),
            reduction_factor=REDUCTION,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial goes on after an epoch."""
        action = super().on_trial_result(tune_controller, trial, result)
        is_over = result["training_iteration"] >= self.epochs
        return action if trial.config["number"] or is_over else self.CONTINUE


def run(plan: Plan, *, workers: int, address: str | None) -> None:
    """Run all trials; each of them has its file in the folder of the search afterwards.

    Args:
      plan: the trials.
      workers: trainings at a time.
      address: of a Ray cluster; None: one is started on this machine.

    Raises:
      KeyboardInterrupt: Ctrl-C was pressed; all trainings were stopped.
    """
    # Ray would write a log for TensorBoard and its own tables, and wait for whole epochs at Ctrl-C.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    plan.stop_file().unlink(missing_ok=True)
    scratch = Path(plan.folder, ".ray")
    with cluster.connected(ray, workers, address) as cores:
        gpus = ray.cluster_resources().get("GPU", 0) / workers
        tuner = tune.Tuner(
            tune.with_resources(Trial, {"cpu": cores, "gpu": gpus}),
            param_space={
                "number": tune.grid_search(list(range(len(plan.flags)))),
                "plan": dataclasses.asdict(plan),
                "working": os.getcwd(),
            },
            tune_config=tune.TuneConfig(scheduler=Scheduler(plan), max_concurrent_trials=workers),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Keeper(plan)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            _stop_trainings(plan)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    for number in range(len(plan.flags)):
        if read_ended(Path(plan.folder), number) is None:
            raise TrainingError("Ray ended before all trials had ended; go on with --resume")
        shutil.rmtree(plan.output(number), ignore_errors=True)  # Ray may have been faster


def _stop_trainings(plan: Plan) -> None:
    """Stop the trainings that run, and wait for their end."""
    plan.stop_file().touch()
    for number in range(len(plan.flags)):
        lock = plan.run_folder(number) / LOCK
        if lock.exists():
            with locked(lock):
                pass
    plan.stop_file().unlink()
