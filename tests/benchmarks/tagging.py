"""Training of the tagger of named entities, compared with the same network in PyTorch.

    python -m tests.benchmarks.tagging

The corpus has the size of CoNLL-2003's training part: 14,000 sentences of 14.5 tokens on average,
made of random words, in batches of 32. The network has word vectors of 50 dimensions (a fixed and a
learned part), a convolution over characters, one bidirectional LSTM of 100 units and a CRF; Adam
trains it. Each library runs in a process of its own, ours by `common.training.fit`. The first
epoch, which traces and compiles, is not counted. The last line is one JSON object; in its ratio,
above 1.0 our training is faster. PyTorch comes with the extra `[bench]`; `--torch PYTHON` names the
interpreter of another environment that has it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS, CHARACTERS, TAGS, LONGEST = 20_000, 80, 9, 64
DIMENSION, CHARACTER_DIMENSION, FILTERS, UNITS, WORD_LENGTH = 50, 16, 32, 100, 20
LENGTHS = (8, 16, 24, 40, LONGEST)
BATCH = 32


def make_batches(sentences, seed=0):
    """Return batches of sentences of similar length as NumPy, right-padded."""
    random = np.random.default_rng(seed)
    length = np.clip(np.rint(random.lognormal(2.45, 0.7, sentences)), 1, LONGEST).astype(np.int32)
    buckets = np.searchsorted(LENGTHS, length)
    batches = []
    for bucket, time_steps in enumerate(LENGTHS):
        rows = np.flatnonzero(buckets == bucket)
        for start in range(0, len(rows), BATCH):
            count = length[rows[start : start + BATCH]]
            shape = (len(count), time_steps)
            real = np.arange(time_steps) < count[:, None]
            words = np.minimum(random.zipf(1.3, shape), WORDS - 1).astype(np.int32) * real
            letters = random.integers(2, CHARACTERS, (*shape, WORD_LENGTH), np.int32)
            inside = np.arange(WORD_LENGTH) < random.integers(1, 10, shape)[..., None]
            tags = random.choice([0, 0, 0, 0, 0, 1, 3, 5, 7], shape).astype(np.int32) * real
            characters = letters * inside * real[..., None]
            batches.append(
                {"words": words, "characters": characters, "tags": tags, "length": count}
            )
    return [batches[number] for number in random.permutation(len(batches))]


def ours(batches, epochs):
    """Return the seconds of each epoch of `common.training.fit`."""
    from common.training.fit import FitOptions, fit, set_up
    from common.word_embedding import WordEmbedding
    from tasks.ner import model
    from tasks.ner.config import Config
    from tasks.ner.formats import tag_names

    import keras
    import tensorflow as tf

    set_up(seed=1, precision="float32")
    config = Config(units=UNITS, word_length=WORD_LENGTH)
    embedding = WordEmbedding(WORDS, WORDS, DIMENSION, word_dropout=0.1)
    tags = tag_names(["LOC", "MISC", "ORG", "PER"])
    tagger = model.build(config, embedding, model.WordShape(CHARACTERS), tags=tags)
    signature = {
        name: tf.TensorSpec([None] * value.ndim, tf.int32) for name, value in batches[0].items()
    }
    signature["characters"] = tf.TensorSpec([None, None, WORD_LENGTH], tf.int32)

    def dataset(rows):
        return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)

    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            tagger,
            optimizer=keras.optimizers.Adam(1e-3),
            losses=model.make_losses(tagger),
            train=lambda epoch: dataset(batches).prefetch(8),
            validation=dataset(batches[:1]),
            score=lambda rows: {"count": float(len(list(rows)))},
            monitor="loss",
            mode="min",
            options=FitOptions(directory=Path(folder), epochs=epochs, patience=epochs, verbose=0),
        )
    return np.diff([0.0, *(row["seconds"] for row in fitted.history)]).tolist()


def theirs(batches, epochs):
    """Return the seconds of each epoch of the same network in PyTorch."""
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed = nn.Embedding(WORDS, DIMENSION).requires_grad_(False)
            self.learnt = nn.Embedding(WORDS, DIMENSION)
            self.letters = nn.Embedding(CHARACTERS, CHARACTER_DIMENSION)
            self.convolution = nn.Conv1d(CHARACTER_DIMENSION, FILTERS, 3, padding=1)
            size = DIMENSION + FILTERS + 9
            self.network = nn.LSTM(size, UNITS, batch_first=True, bidirectional=True)
            self.head = nn.Linear(2 * UNITS, TAGS)
            self.transitions = nn.Parameter(torch.zeros(TAGS, TAGS))
            self.dropout = nn.Dropout(0.5)

        def forward(self, words, characters, length):
            rows, steps, width = characters.shape
            letters = self.letters(characters.reshape(rows * steps, width)).transpose(1, 2)
            spelling = torch.relu(self.convolution(letters)).amax(2).reshape(rows, steps, FILTERS)
            shape = torch.zeros(rows, steps, 9)
            x = torch.cat([self.fixed(words) + self.learnt(words), spelling, shape], 2)
            packed = nn.utils.rnn.pack_padded_sequence(
                self.dropout(x), length, batch_first=True, enforce_sorted=False
            )
            y, _ = nn.utils.rnn.pad_packed_sequence(
                self.network(packed)[0], batch_first=True, total_length=steps
            )
            return self.head(self.dropout(y))

        def loss(self, emissions, tags, real):
            """Return the mean negative log-likelihood of a CRF."""
            scores = emissions.gather(2, tags[..., None])[..., 0]
            moves = self.transitions[tags[:, :-1], tags[:, 1:]]
            path = (scores * real).sum(1) + (moves * real[:, 1:]).sum(1)
            alpha = emissions[:, 0]
            for step in range(1, emissions.shape[1]):
                following = torch.logsumexp(alpha[:, :, None] + self.transitions, 1)
                following = following + emissions[:, step]
                alpha = torch.where(real[:, step, None] > 0, following, alpha)
            return (torch.logsumexp(alpha, 1) - path).mean()

    tagger = Tagger()
    optimizer = torch.optim.Adam([p for p in tagger.parameters() if p.requires_grad], 1e-3)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for batch in batches:
            batch = {name: torch.from_numpy(value).long() for name, value in batch.items()}
            steps = torch.arange(batch["words"].shape[1])
            real = (steps[None] < batch["length"][:, None]).float()
            emissions = tagger(batch["words"], batch["characters"], batch["length"])
            optimizer.zero_grad(set_to_none=True)
            tagger.loss(emissions, batch["tags"], real).backward()
            torch.nn.utils.clip_grad_norm_(tagger.parameters(), 5.0)
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def run(kind, python, options):
    """Return the tokens per second of a library, measured in its own process; None without it."""
    command = [python, "-m", "tests.benchmarks.tagging", "--only", kind]
    command += ["--sentences", str(options.sentences), "--epochs", str(options.epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    speed = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind:6} {speed:8.0f} tokens/s", flush=True)
    return speed


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.tagging", description="Compare a tagger with PyTorch."
    )
    parser.add_argument("--sentences", type=int, default=14_000, help="sentences of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="epochs after the first one")
    parser.add_argument("--torch", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--only", choices=("ours", "torch"), help="measure one library, here")
    options = parser.parse_args()
    if options.only:
        batches = make_batches(options.sentences)
        tokens = sum(int(batch["length"].sum()) for batch in batches)
        seconds = {"ours": ours, "torch": theirs}[options.only](batches, 1 + options.epochs)
        print(json.dumps(tokens / float(np.median(seconds[1:]))))
        return
    speeds = {
        "ours": run("ours", sys.executable, options),
        "torch": run("torch", options.torch, options),
    }
    ratio = None
    if None not in speeds.values():
        ratio = round(speeds["ours"] / speeds["torch"], 3)
    rounded = {
        f"{kind}_tokens_per_second": speed and round(speed) for kind, speed in speeds.items()
    }
    print(json.dumps({**rounded, "ours_over_torch": ratio}))


if __name__ == "__main__":
    main()
