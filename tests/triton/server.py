"""Exports on the Triton inference server: a real server, on this machine, without a GPU.

The wheel `nvidia-pytriton` holds the server's binary and its Python backend, which needs NumPy 1.
So both live in an environment of their own, of about 2 GB. One model of Triton is one export with
all its signatures; its tensors are named `<signature>.<name>`. A value per row, of shape [batch],
has the shape [batch, 1] there.
"""

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

from common.serving import check
from tests.ports import free_ports

from tensorflow.core.framework import types_pb2

PACKAGES = (
    "nvidia-pytriton==0.7.0",
    "tritonclient[grpc,http]==2.73.0",
    "tensorflow==2.21.0",
    "numpy==1.26.4",
    "openvino==2026.4.1",
)
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".pytest_cache" / "d" / "triton"  # where pytest keeps its own
BATCHING = ROOT / "saved_models" / "batching.config"
TYPES = {  # of TensorFlow -> of Triton
    types_pb2.DT_STRING: "TYPE_STRING",
    types_pb2.DT_FLOAT: "TYPE_FP32",
    types_pb2.DT_INT32: "TYPE_INT32",
    types_pb2.DT_UINT8: "TYPE_UINT8",
    types_pb2.DT_BOOL: "TYPE_BOOL",
}


def make_environment(folder=ENVIRONMENT):
    """Return the interpreter of an environment with `PACKAGES`, made when it is first needed."""
    python, stamp = folder / "bin" / "python", folder / "packages.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        # The wheel has one stub per version of Python; the backend looks for it in its own folder.
        triton = triton_folder(python)
        stub = "triton_python_backend_stub"
        version = "{}.{}".format(*sys.version_info)
        shutil.copy(
            triton / "python_backend_stubs" / version / stub, triton / "backends" / "python"
        )
        stamp.write_text(json.dumps(PACKAGES))
    return python


def triton_folder(python):
    """Return the folder of the server in an environment."""
    return next(python.parents[1].glob("lib/python*/site-packages/pytriton/tritonserver"))


def bare_environment():
    """Return the environment variables without those of this project's interpreter."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(python, script, job):
    """Run a script of this folder in the environment, with a pickled job; return its result."""
    done = subprocess.run(
        [python, Path(__file__).with_name(script)],
        input=pickle.dumps(job),
        stdout=subprocess.PIPE,
        check=True,
        env=bare_environment(),
    )
    return pickle.loads(done.stdout)


# --- The model repository -------------------------------------------------------------------------


def tensors(kind, signatures, side):
    """Return the tensors of all signatures as a part of `config.pbtxt`."""
    lines = []
    for signature, definition in sorted(signatures.items()):
        for name, info in sorted(getattr(definition, side).items()):
            dims = [dim.size for dim in info.tensor_shape.dim][1:]
            line = f'{kind} {{ name: "{signature}.{name}" data_type: {TYPES[info.dtype]} '
            line += f"dims: {dims or [1]} " + ("" if dims else "reshape { shape: [] } ")
            # Ragged inputs may be merged; those of other signatures are left out of a request.
            lines.append(
                line + ("optional: true allow_ragged_batch: true }" if kind == "input" else "}")
            )
    return "\n".join(lines)


def config(version, batching):
    """Return the `config.pbtxt` of a version folder, with the limits of `batching.config`."""
    limits = dict(re.findall(r"(\w+) \{ value: (\d+) \}", BATCHING.read_text()))
    signatures = check.read_signatures(version)
    delay = limits["batch_timeout_micros"]
    merge = f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}" if batching else ""
    return f"""backend: "python"
max_batch_size: {limits["max_batch_size"]}
instance_group {{ kind: KIND_CPU count: 1 }}
{merge}
{tensors("input", signatures, "inputs")}
{tensors("output", signatures, "outputs")}
"""


def add_version(repository, model, number, version, batching=True):
    """Put a version folder of an export into a model repository of Triton."""
    folder = repository / model / str(number)
    folder.mkdir(parents=True)
    (folder / "export").symlink_to(version.resolve())
    (folder / "model.py").symlink_to(Path(__file__).with_name("model.py"))
    (repository / model / "config.pbtxt").write_text(config(version, batching))


# --- The server -----------------------------------------------------------------------------------


class Server:
    """A running Triton.

    Args:
      python: the interpreter of `make_environment`.
      repository: the folder of its models; see `add_version`.

    Attributes:
      addresses: `http`, `grpc` and `metrics` -> `host:port`.
    """

    def __init__(self, python, repository):
        self._python, self._repository = python, repository
        ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        folder = triton_folder(python)
        line = [folder / "bin" / "tritonserver", f"--model-repository={repository}"]
        line += [f"--backend-directory={folder / 'backends'}", "--disable-auto-complete-config"]
        line += ["--model-control-mode=explicit", "--load-model=*"]
        line += [f"--{name}-port={port}" for name, port in ports.items()]
        line += [
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--allow-gpu-metrics=false",
        ]
        environment = bare_environment()
        # The stub is linked to the shared library of this Python, and finds packages by PATH.
        environment["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
        environment["PATH"] = f"{python.parent}:{environment['PATH']}"
        self._log = repository.with_suffix(".log")
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log, env=environment)

    def __enter__(self):
        try:
            self._wait(600)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, seconds):
        for _ in range(2 * seconds):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                self.fetch("v2/health/ready")
                return
            time.sleep(0.5)
        raise RuntimeError(f"Triton did not start:\n{self._log.read_text()[-4000:]}")

    def fetch(self, path, body=None, server="http"):
        """Return the text of an address; with a body, the request is a POST."""
        url = f"http://{self.addresses[server]}/{path}"
        with urllib.request.urlopen(url, body, timeout=300) as response:
            return response.read().decode()

    def load(self, model):
        """Load a model anew; its newest version replaces the one that is served."""
        self.fetch(f"v2/repository/models/{model}/load", b"{}")

    def counts(self, model):
        """Return the numbers of requests with a response and of executions, from the metrics."""
        text = self.fetch("metrics", server="metrics")
        return tuple(
            sum(
                float(value)
                for value in re.findall(rf'^{metric}{{model="{model}",.*}} (\S+)', text, re.M)
            )
            for metric in ("nv_inference_request_success", "nv_inference_exec_count")
        )

    def megabytes(self):
        """Return the resident memory of the server and of the process of each model."""
        sizes = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it has ended
                text = status.read_text()
                line = status.with_name("cmdline").read_text().split("\0")
                if f"\nPid:\t{self._process.pid}\n" in text:
                    name = "server"
                elif f"\nPPid:\t{self._process.pid}\n" in text:
                    name = Path(line[1]).parents[1].name
                else:
                    continue
                for size in re.findall(r"VmRSS:\s+(\d+) kB", text):  # a zombie has none
                    sizes[name] = sizes.get(name, 0.0) + int(size) / 1024
        return sizes

    def send(self, requests, clients=1, protocol="grpc", outputs=True):
        """Send requests by `client.py`.

        Args:
          requests: for each, the model, the signature and its inputs.

        Returns:
          The seconds of all, and for each its seconds, the version that responded, and its outputs
          or the message of an error.
        """
        encoded = []
        for model, signature, inputs in requests:
            arrays = {
                f"{signature}.{name}": array[:, None] if array.ndim == 1 else array
                for name, array in inputs.items()
            }
            encoded.append((model, arrays))
        job = {"protocol": protocol, "address": self.addresses[protocol], "clients": clients}
        job |= {"requests": encoded, "outputs": outputs}
        seconds, results = run(self._python, "client.py", job)
        return seconds, [
            (*one, got if isinstance(got, str) else self._decode(request, got))
            for request, (*one, got) in zip(requests, results, strict=True)
        ]

    def _decode(self, request, outputs):
        """Undo the names and the shapes of the outputs of a request."""
        model, signature, _ = request
        version = next((self._repository / model).glob("*/export"))
        infos = check.read_signatures(version)[signature].outputs
        arrays = {name.removeprefix(f"{signature}."): array for name, array in outputs.items()}
        return {
            name: array if len(infos[name].tensor_shape.dim) > 1 else array[:, 0]
            for name, array in arrays.items()
        }
