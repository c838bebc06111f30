"""Send requests to Triton with NVIDIA's client library, in the environment of `server.py`.

It reads a pickled job from standard input: `protocol` ("http" or "grpc"), `address`, `clients`,
`requests` (pairs of a model and its inputs) and `outputs` (whether to return them). Each client
sends one request at a time and waits for the response. It writes a pickled pair: the seconds of the
whole job, and for each request its seconds, the version of the model, and its outputs or an error.
"""

import concurrent.futures
import importlib
import pickle
import sys
import threading
import time

from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def main():
    """Run the job on standard input; see the module."""
    job = pickle.load(sys.stdin.buffer)
    library = importlib.import_module(f"tritonclient.{job['protocol']}")
    local = threading.local()  # a client of the library belongs to one thread

    def connect():
        local.client = library.InferenceServerClient(job["address"])

    def encode(model, inputs):
        encoded = []
        for name, array in inputs.items():
            tensor = library.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            encoded.append(tensor.set_data_from_numpy(array))
        return model, encoded

    def decode(response):
        message = response.get_response()
        if job["protocol"] == "http":
            version, names = message["model_version"], [one["name"] for one in message["outputs"]]
        else:
            version, names = message.model_version, [one.name for one in message.outputs]
        return int(version), {name: response.as_numpy(name) for name in names if job["outputs"]}

    def send(request):
        start = time.perf_counter()
        try:
            response = local.client.infer(*request)
            seconds = time.perf_counter() - start
            return seconds, *decode(response)
        except InferenceServerException as error:
            return time.perf_counter() - start, None, str(error)

    requests = [encode(*request) for request in job["requests"]]
    with concurrent.futures.ThreadPoolExecutor(job["clients"], initializer=connect) as pool:
        start = time.perf_counter()
        results = list(pool.map(send, requests))
        seconds = time.perf_counter() - start
    pickle.dump((seconds, results), sys.stdout.buffer)


if __name__ == "__main__":
    main()
