"""Start the workers of a training on a Ray cluster, and again after one is lost.

Ray only starts processes here: each worker runs the same command with its own `TF_CONFIG`, as it
would if a person had started it. On several machines the project, the data and the output folder
must be at the same paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.errors import InputError, TrainingError, require
from common.messages import say

OK, INVALID_INPUT = 0, 2  # exit codes; see `common.commands.cli.run`
GRACE = 60.0  # seconds in which the other workers end by themselves after one is lost


class Process:
    """A command that runs on some machine of the cluster, started by an actor of Ray."""

    process: subprocess.Popen[str] | None = None

    def start(self, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> int:
        """Start the command; return the number of its process."""
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return self.process.pid

    def output(self) -> Iterator[tuple[str, int | None]]:
        """Yield the lines of the process as they come, and at last its exit code."""
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            yield line.rstrip("\n"), None
        yield "", self.process.wait()

    def stop(self) -> None:
        """Stop the process as Ctrl-C does, or kill it after a while."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Worker(Process):
    """The process of one worker of a training."""

    def __init__(self) -> None:
        """Choose a port; no process runs yet."""
        self.host = _own_address()
        self.port = _free_port(self.host)

    def address(self) -> str:
        """Return the `HOST:PORT` by which the other workers find this one."""
        return f"{self.host}:{self.port}"


def _own_address() -> str:
    """Return the address of this machine that other machines of the cluster use."""
    import ray

    return ray.util.get_node_ip_address()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def run_workers(
    command: Sequence[str], workers: int, *, address: str | None, max_failures: int
) -> None:
    """Run a command on several workers until all of them have ended well.

    The lines of the chief are printed as they come, those of others if they fail. If a worker is
    lost, all are started again with `--resume`.

    Args:
      command: the words after `python`, without `--resume`.
      workers: number of workers; each takes an equal part of the cores of a machine.
      address: of a Ray cluster; None: one is started on this machine.
      max_failures: how often the workers are started again.

    Raises:
      InputError: Ray is not installed, or the workers have refused their input.
      TrainingError: workers were lost more often than `max_failures`.
    """
    ray = require("ray", "cluster")
    with connected(ray, workers, address) as cores:
        for failures in range(max_failures + 1):
            resume = ["--resume"] if failures or "--resume" in command else []
            words = [word for word in command if word != "--resume"] + resume
            # Two calls at a time: `output` lasts as long as the process, and `stop` ends it.
            kind = ray.remote(num_cpus=cores, max_concurrency=2)(Worker)
            actors = [kind.remote() for _ in range(workers)]
            lost = _Run(ray, actors, words).wait()
            if lost is None:
                return
            if failures < max_failures:
                say(f"{lost}; starting all {workers} again from the last checkpoint")
        raise TrainingError(f"{lost}, after {max_failures} restarts (--max_failures)")


@contextlib.contextmanager
def connected(ray: Any, workers: int, address: str | None) -> Iterator[int]:
    """Connect to a Ray cluster for the block.

    Args:
      ray: the library.
      workers: number of processes that will run there.
      address: of the cluster; None: one is started on this machine.

    Yields:
      The number of cores of a process: an equal part of this machine's.

    Raises:
      TrainingError: Ray cannot be started or reached.
    """
    cores = max(1, (os.cpu_count() or 1) // workers)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        quiet |= {"num_cpus": cores * workers, "include_dashboard": False}
        # Ray runs processes at the lowest priority, at which they wait for all other work.
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        ray.init(address=address or "local", **quiet)
    except Exception as error:  # Ray raises nothing more special
        where = f"Ray at {address} cannot be reached" if address else "Ray did not start"
        raise TrainingError(f"{where}: {error}") from error
    try:
        yield cores
    finally:
        ray.shutdown()


class _Run:
    """One start of all workers."""

    def __init__(self, ray: Any, actors: Sequence[Any], command: Sequence[str]):
        self.ray, self.actors = ray, actors
        self.codes: list[int | None] = [None] * len(actors)
        self.last_lines: list[list[str]] = [[] for _ in actors]
        self.lock = threading.Condition()
        addresses = ray.get([actor.address.remote() for actor in actors])
        started = []
        for index, actor in enumerate(actors):
            place = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": place})
            started.append(actor.start.remote(command, os.getcwd(), {"TF_CONFIG": config}))
        for index, pid in enumerate(ray.get(started)):
            say(f"worker {index}: process {pid} on {addresses[index]}")
        for index, actor in enumerate(actors):
            lines = actor.output.options(num_returns="streaming").remote()
            threading.Thread(target=self._follow, args=(index, lines), daemon=True).start()

    def _follow(self, index: int, lines: Any) -> None:
        """Print or keep the lines of a worker, and its exit code at last."""
        code = 1  # its machine is lost
        try:
            for reference in lines:
                line, ended = self.ray.get(reference)
                if ended is not None:
                    code = ended
                elif index == 0:
                    print(line, flush=True)
                else:
                    self.last_lines[index] = [*self.last_lines[index], line][-20:]
        except self.ray.exceptions.RayError as error:
            self.last_lines[index].append(str(error).strip().splitlines()[-1])
        with self.lock:
            self.codes[index] = code
            self.lock.notify_all()

    def wait(self) -> str | None:
        """Wait for all workers; return which was lost first, or None.

        Raises:
          InputError: a worker has refused its input, which a new start would not change.
        """
        try:
            with self.lock:
                self.lock.wait_for(lambda: any(self.codes) or None not in self.codes)
                if not any(self.codes):
                    return None
                # The first that failed; the others end when they notice.
                index = next(n for n, code in enumerate(self.codes) if code)
                self.lock.wait_for(lambda: None not in self.codes, timeout=GRACE)
        finally:
            for actor in self.actors:
                self._stop(actor)
        code, lines = self.codes[index], self.last_lines[index]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if code == INVALID_INPUT:
            raise InputError(errors[-1] if errors else "the workers refuse their input; see above")
        reason = f" ({errors[-1]})" if errors else ""
        return f"worker {index} ended with exit code {code}{reason}"

    def _stop(self, actor: Any) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):  # lost with its machine
            self.ray.get(actor.stop.remote(), timeout=2 * GRACE)
        self.ray.kill(actor)
