"""Whole epochs over real ragged text, compared with stock Keras and PyTorch.

    python -m tests.benchmarks.training

Two models have an embedding and one bidirectional LSTM: a classifier of the sentences of
sentiment's default data (mean over the steps, softmax), and a tagger of those of ner's (softmax at
each step). Adam trains each in stock Keras, with our layers, and in PyTorch (extra `[bench]`,
packed sequences), on the same batches of similar length. The epochs of the three alternate. The
output holds the medians, and separately the first epoch, which traces and compiles. The last line
is one JSON object; in its ratios, above 1.0 our layers are faster.
"""

import argparse
import json
import statistics
import time

from common import rnn
from common.commands.config import RunConfig
from common.data import batches, bucket_lengths
from common.text import count_words, frequent, tokenize
from tasks.ner import data as ner_data
from tasks.sentiment import data as sentiment_data

import keras
import numpy as np
import tensorflow as tf
from keras import ops

try:
    import torch
except ImportError:
    torch = None

DIMENSION, UNITS, LONGEST, BATCH = 100, 150, 64, 32


# --- Data -----------------------------------------------------------------------------------------


def padded(ids, labels):
    """Return batches of ids `<int32>[batch, time]`, length and label, as NumPy."""
    rows = [row[:LONGEST] for row in ids]
    kinds = np.asarray(labels[0]).ndim  # a label for each text, or one for each token

    def examples():
        for row, label in zip(rows, labels, strict=True):
            yield {"ids": row, "length": len(row), "label": label[: len(row)] if kinds else label}

    signature = {
        "ids": tf.TensorSpec([None], tf.int32),
        "length": tf.TensorSpec([], tf.int32),
        "label": tf.TensorSpec([None] if kinds else [], tf.int32),
    }
    dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
    grouped = batches(dataset, bucket_lengths(LONGEST), BATCH, shuffle_seed=0)
    return list(grouped.as_numpy_iterator())


def reviews():
    """Return the batches, the number of words and the number of classes."""
    corpus = sentiment_data.load(RunConfig(dataset="rated_texts"), seed=1)
    train = corpus.splits["train"]
    words = frequent(count_words(train.map(lambda review: review["text"])))
    place = {word.encode(): row for row, word in enumerate(words, start=1)}
    rows = [
        [place[token] for token in tokens]
        for texts in train.map(lambda review: review["text"]).batch(1024)
        for tokens in tokenize(texts).to_list()
    ]
    labels = [int(review["label"]) for review in train.as_numpy_iterator()]
    not_empty = [row for row in range(len(rows)) if rows[row]]
    pairs = padded([rows[row] for row in not_empty], [labels[row] for row in not_empty])
    return pairs, len(words) + 1, len(corpus.labels)


def sentences():
    """Return the batches, the number of words and the number of tags."""
    corpus = ner_data.load(RunConfig(dataset="everyday_entities"), seed=1)
    train = list(corpus.splits["train"].as_numpy_iterator())
    words = sorted({token for row in train for token in row["tokens"]})
    place = {word: number for number, word in enumerate(words, start=1)}
    rows = [[place[token] for token in row["tokens"]] for row in train]
    return padded(rows, [row["tags"] for row in train]), len(words) + 1, len(corpus.labels)


# --- Models ---------------------------------------------------------------------------------------


def keras_step(layers, words, classes, tags):
    """Return a training step with the recurrent layers of the module `layers`."""
    ids, length = keras.Input((None,), dtype="int32"), keras.Input((), dtype="int32")
    mask = rnn.length_mask(length, ids)
    x = keras.layers.Embedding(words, DIMENSION)(ids)
    wrap = rnn.bidirectional if layers is rnn else keras.layers.Bidirectional
    x = wrap(layers.LSTM(UNITS, return_sequences=True))(x, mask=mask)
    if not tags:
        x = ops.sum(x, axis=1) / ops.cast(length, "float32")[:, None]
    model = keras.Model([ids, length], keras.layers.Dense(classes)(x))
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(ids, length, label):
        with tf.GradientTape() as tape:
            logits = model([ids, length], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
            if tags:
                real = tf.cast(rnn.length_mask(length, ids), tf.float32)
                losses = tf.reduce_sum(losses * real) / tf.reduce_sum(real)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return lambda batch: float(step(*(tf.constant(batch[k]) for k in ("ids", "length", "label"))))


def torch_step(words, classes, tags):
    """Return the same training step in PyTorch."""
    embedding = torch.nn.Embedding(words, DIMENSION)
    network = torch.nn.LSTM(DIMENSION, UNITS, batch_first=True, bidirectional=True)
    head = torch.nn.Linear(2 * UNITS, classes)
    parts = [*embedding.parameters(), *network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parts)
    tools, cross_entropy = torch.nn.utils.rnn, torch.nn.functional.cross_entropy

    def step(batch):
        ids, length, label = (
            torch.tensor(batch[k], dtype=torch.long) for k in ("ids", "length", "label")
        )
        packed = tools.pack_padded_sequence(
            embedding(ids), length, batch_first=True, enforce_sorted=False
        )
        out, _ = network(packed)
        x, _ = tools.pad_packed_sequence(out, batch_first=True, total_length=ids.shape[1])
        optimizer.zero_grad(set_to_none=True)
        if tags:
            real = torch.arange(ids.shape[1])[None] < length[:, None]
            loss = cross_entropy(head(x)[real], label[real])
        else:
            loss = cross_entropy(head(x.sum(1) / length[:, None]), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


# --- Measuring ------------------------------------------------------------------------------------


def measure(name, pairs, words, classes, tags, epochs):
    """Return the tokens per second of each library without the first epoch; print a line each."""
    tokens = sum(int(batch["length"].sum()) for batch in pairs)
    print(f"{name}: {tokens} tokens in {len(pairs)} batches, {words} words, {classes} classes")
    steps = {
        "keras": keras_step(keras.layers, words, classes, tags),
        "ours": keras_step(rnn, words, classes, tags),
    }
    if torch:
        steps["torch"] = torch_step(words, classes, tags)
    seconds = {kind: [] for kind in steps}
    for _ in range(1 + epochs):
        for kind, step in steps.items():
            start = time.perf_counter()
            losses = [step(batch) for batch in pairs]
            seconds[kind].append(time.perf_counter() - start)
            if not np.isfinite(losses).all():
                raise FloatingPointError(f"{kind}: the loss is not finite")
    speeds = {}
    for kind, (first, *later) in seconds.items():
        speeds[kind] = tokens / statistics.median(later)
        print(f"  {kind:6} {speeds[kind]:8.0f} tokens/s; first epoch {first:.1f} s", flush=True)
    return speeds


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.training",
        description="Compare whole epochs with stock Keras and PyTorch.",
    )
    parser.add_argument(
        "--epochs", type=int, default=3, help="epochs after the first one (default: 3)"
    )
    options = parser.parse_args()
    result = {}
    for name, tags, source in (("sentiment", False, reviews), ("tagging", True, sentences)):
        speeds = measure(name, *source(), tags, options.epochs)
        result[f"{name}_tokens_per_second"] = round(speeds["ours"])
        for peer in ("keras", "torch"):
            ratio = round(speeds["ours"] / speeds[peer], 3) if peer in speeds else None
            result[f"{name}_{peer}_over_ours"] = ratio
    print(json.dumps(result))


if __name__ == "__main__":
    main()
