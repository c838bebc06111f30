"""Milliseconds of PyTorch's recurrent layers: `python torch_times.py cuda 20 CASES`.

A script of its own, since PyTorch and TensorFlow each load a cuDNN of their own. CASES is a JSON
list of `[cell, batch, time, features, units, layers, bidirectional]`. The last line is one JSON
object: the version, and for each case the medians of a training step and of a prediction.
"""

import json
import statistics
import sys
import time

import torch


def median(call, repeats, synchronize):
    """Return the median milliseconds of a call."""
    times = []
    for number in range(repeats + 3):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        if number >= 3:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(case, device, repeats, synchronize):
    """Return the milliseconds of a training step and of a prediction."""
    cell, batch, steps, features, units, layers, bidirectional = case
    kind = getattr(torch.nn, cell)
    network = kind(features, units, layers, batch_first=True, bidirectional=bidirectional)
    network.to(device)
    x = torch.randn(batch, steps, features, device=device, requires_grad=True)
    weight = torch.randn(batch, steps, units * (1 + bidirectional), device=device)

    def train():
        x.grad = None
        network.zero_grad(set_to_none=True)
        (network(x)[0] * weight).sum().backward()

    @torch.no_grad()
    def predict():
        network(x)

    return {
        name: median(f, repeats, synchronize) for name, f in [("train", train), ("export", predict)]
    }


def main():
    device, repeats, cases = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = [measure(case, device, repeats, synchronize) for case in cases]
    print(json.dumps({"version": torch.__version__, "times": times}))


if __name__ == "__main__":
    main()
