"""A small text classifier with signatures, which the tests of publishing export."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from common.rnn import length_mask
from common.serving.publish import publish
from common.serving.versions import GRAPH

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

WORDS = ("", "a", "film", "good", "bad", "élan")  # 0 pads; an unknown word is 6
TEXTS = np.array(["a good film", "bad", "", "élan vital " * 9], dtype=object)
IDS = np.array([[1, 3, 2, 0], [4, 0, 0, 0], [5, 6, 5, 6]], np.int32)
LENGTH = np.array([3, 1, 4], np.int32)
OWN_SETTINGS = {"labels": ["schlecht", "größer"], "config": {"units": 3, "rate": 0.5, "none": None}}


class Task(NamedTuple):
    """A text classifier as in a task: a model from ids to probabilities, and text signatures."""

    model: keras.Model
    table: tf.lookup.StaticHashTable
    signatures: dict
    examples: dict

    def publish(self, directory: Path, **changed) -> Path:
        arguments = {
            "model": self.model,
            "resources": [self.table],
            "examples": self.examples,
            "settings": OWN_SETTINGS,
            "directory": directory,
        }
        signatures = changed.pop("signatures", self.signatures)
        return publish(signatures, **{**arguments, **changed})


def make_task() -> Task:
    keras.utils.set_random_seed(1)
    ids = keras.Input([None], dtype="int32", name="ids")
    length = keras.Input([], dtype="int32", name="length")
    x = keras.layers.Embedding(7, 4)(ids)
    mask = length_mask(length, x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True))(x, mask=mask)
    x = keras.layers.GRU(3)(x, mask=mask)
    outputs = {"probabilities": keras.layers.Dense(2, activation="softmax")(x)}
    model = keras.Model({"ids": ids, "length": length}, outputs)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    truth = np.eye(2, dtype=np.float32)[[1, 0, 1]]
    model.fit({"ids": IDS, "length": LENGTH}, {"probabilities": truth}, epochs=2, verbose=0)

    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.range(len(WORDS))), len(WORDS)
    )
    names = tf.constant(OWN_SETTINGS["labels"])

    def probabilities(ids, length):
        return model({"ids": ids, "length": length}, training=False)["probabilities"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(text):
        tokens = tf.strings.split(text)
        scores = probabilities(
            table.lookup(tf.pad(tokens.to_tensor(), [[0, 0], [0, 1]])),
            tf.cast(tokens.row_lengths(), tf.int32),
        )
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {"label": tf.gather(names, best), "class": best, "probabilities": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="ids"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(ids, length):
        return {"probabilities": probabilities(ids, length)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text):
        return {"tokens": tf.strings.split(text).to_tensor()}

    return Task(
        model,
        table,
        {"serving_default": serving_default, "tensors": tensors, "explain": explain},
        {
            "serving_default": [{"text": TEXTS}, {"text": np.array(["good film"])}],
            "tensors": [{"ids": IDS, "length": LENGTH}],
            "explain": [{"text": np.array([b"a", b"\xff bad bytes"])}, {"text": TEXTS[:1]}],
        },
    )


def nothing_left(directory: Path) -> bool:
    return not directory.exists() or not list(directory.iterdir())


def damage(folder: Path, change) -> None:
    """Change the saved_model.pb in `folder` with `change(meta_graph)`."""
    path = folder / GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0])
    path.write_bytes(saved.SerializeToString())
