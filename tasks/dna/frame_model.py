"""The gene finder for genes without introns: recurrent layers over open reading frames.

    sequence -> open reading frames       both strands, every start codon, genes that run off the
                                          record (`reading_frames`)
      -> tables of the organism           words of six bases in each codon position, start motif,
                                          ribosome-binding motif and its distance, start codons
                                          (`gene_tables`)
      -> candidates                       reading frames with a score that a gene could have
      -> bidirectional LSTM               over the candidates in their order, both strands alike
      -> log-odds of each gene, probability of each of its starts
      -> dynamic program                  the best set of genes (`arrangement`)

The network reads the candidates of a record in their order (`candidates.Candidates`), upstream and
downstream, and returns the log-odds that each is a gene, and the probability of each of its starts.
`arrangement.arrange` then chooses the genes. Both strands are alike by construction: one recurrent
layer reads the candidates from left to right and from right to left, with all strands turned round,
so that a sequence and its reverse complement have mirrored answers, but for the borders of windows
of 128 candidates.

The network weighs the tables: the score and length of a reading frame, its strongest rival, the
certain genes before and after it, and the amount of counted sequence. In training it reads each
genome whole, in contigs of 400 to 12,000 bases, and in such contigs with the tables of the other
organisms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.rnn import length_mask, stack
from common.training.fit import Losses
from tasks.dna import gene_tables
from tasks.dna.candidates import FRAME_FEATURES, START_FEATURES, STARTS
from tasks.dna.config import Config
from tasks.dna.gene_tables import Tables
from tasks.dna.sequence_statistics import WORDS

import keras
import numpy as np
import tensorflow as tf
from keras import ops

CORE, CONTEXT = 128, 32  # candidates of a window that are labelled, and read on each side of them
WINDOW = CORE + 2 * CONTEXT
START_LOSS = 0.5  # weight of the loss of the starts of a gene


@keras.saving.register_keras_serializable("tasks.dna")
class Organisms(keras.layers.Layer):
    """Tables of the training data's organisms, for others with similar fractions of G and C.

    Args:
      count: number of organisms.
      kinds: number of start codons.

    Call arguments:
      content: `<float32>[batch]`, fraction of G and C.

    Returns:
      The fields of `gene_tables.Tables` by name, each with the batch first.
    """

    def __init__(self, count: int, kinds: int, **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.count, self.kinds = count, kinds

    def build(self, *_: Any) -> None:
        """Create the tables, all 0."""
        self.contents = self.add_weight((self.count,), "zeros", trainable=False, name="contents")
        self.tables = [
            self.add_weight((self.count, *shape), "zeros", trainable=False, name=name)
            for name, shape in table_shapes(self.kinds).items()
        ]

    def fill(self, contents: np.ndarray, tables: Tables) -> None:
        """Set the tables, in ascending order of `contents`."""
        self.contents.assign(contents)
        for weight, table in zip(self.tables, tables, strict=True):
            weight.assign(table)

    def call(self, content: tf.Tensor) -> dict[str, tf.Tensor]:
        """Interpolate between the organisms."""
        tables = Tables(*map(tf.convert_to_tensor, self.tables))
        contents = tf.convert_to_tensor(self.contents)
        mixed = gene_tables.interpolate(tf.convert_to_tensor(content), contents, tables)
        return mixed._asdict()

    def compute_output_spec(self, content: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        """Return the shapes of the tables."""
        return {
            name: keras.KerasTensor((content.shape[0], *shape), dtype="float32")
            for name, shape in table_shapes(self.kinds).items()
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "count": self.count, "kinds": self.kinds}


def table_shapes(kinds: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the fields of `gene_tables.Tables`, without the batch."""
    return {
        "words": (WORDS + 1, 3),
        "motif": (gene_tables.BEFORE + gene_tables.AFTER, 5),
        "binding": (gene_tables.BINDING,),
        "kinds": (kinds + 1,),
        "counted": (),
    }


@keras.saving.register_keras_serializable("tasks.dna")
class Turn(keras.layers.Layer):
    """Reverse the real steps of right-padded rows; any mask is removed.

    Call arguments:
      x: `<float>[batch, time, n]`.
      length: `<int32>[batch]`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Reverse each row up to its length."""
        length = tf.clip_by_value(tf.cast(length, tf.int32), 0, tf.shape(x)[1])
        return tf.reverse_sequence(x, length, 1)

    def compute_mask(self, *_: Any) -> None:
        """Return no mask."""

    def compute_output_spec(
        self, x: keras.KerasTensor, length: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the shape, which is that of `x`."""
        del length
        return keras.KerasTensor(x.shape, dtype=x.dtype)


def build(config: Config, organisms: int) -> keras.Model:
    """Build the network.

    Args:
      config: the architecture.
      organisms: number of organisms of the training data.

    Returns:
      A functional model. Inputs: `frames` `<float32>[batch, time, features]`, `starts`
      `<float32>[batch, time, STARTS, features]`, `strand` `<float32>[batch, time]`, `length`
      `<int32>[batch]`, and `content` `<float32>[batch]`, the fraction of G and C. Outputs: `gene`
      `<float32>[batch, time]`, the log-odds of a gene; `start` `<float32>[batch, time, STARTS]`,
      log-probabilities; and the tables of similar organisms.
    """
    kinds = len(config.start_codons)
    frames = keras.Input((None, FRAME_FEATURES + kinds), name="frames")
    starts = keras.Input((None, STARTS, START_FEATURES + kinds), name="starts")
    strand = keras.Input((None,), name="strand")
    length = keras.Input((), dtype="int32", name="length")
    content = keras.Input((), name="content")
    tables = Organisms(organisms, kinds, name="organisms")(content)
    x = keras.layers.Dense(config.units, activation="relu", name="read")(frames)
    upstream, downstream = _context(config, x, strand, length)
    x = keras.layers.Concatenate(name="joined")([frames, x, upstream, downstream])
    x = keras.layers.Dropout(config.dropout)(x)
    x = keras.layers.Dense(config.units, activation="relu", name="weigh")(x)
    gene = keras.layers.Dense(1, dtype="float32", name="gene")(x)
    around = keras.layers.Dense(16, activation="relu", name="around")(x)
    around = ops.repeat(ops.expand_dims(around, 2), STARTS, axis=2)
    y = keras.layers.Concatenate(name="seen")([starts, around])
    y = keras.layers.Dense(32, activation="relu", name="read_start")(y)
    y = keras.layers.Dense(1, dtype="float32", name="start_score")(y)
    y = ops.squeeze(y, 3) - 1e9 * (1.0 - ops.cast(starts[..., 0], "float32"))
    start = keras.layers.Activation("log_softmax", dtype="float32", name="start")(y)
    return keras.Model(
        {
            "frames": frames,
            "starts": starts,
            "strand": strand,
            "length": length,
            "content": content,
        },
        {"gene": ops.squeeze(gene, 2), "start": start, **tables},
        name="dna_frames",
    )


def _context(
    config: Config, x: keras.KerasTensor, strand: keras.KerasTensor, length: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return what lies upstream and downstream of each candidate, on its own strand."""
    mask = length_mask(length, x)
    turn = Turn(name="turn")
    forward = ops.expand_dims(strand, 2)
    left, right = x, x  # as read from the left and from the right
    for number in range(config.layers):
        recurrent = stack(config.cell, config.units, 1, name=f"context_{number}")
        from_left = recurrent(ops.concatenate([left, forward], axis=2), mask=mask)
        from_right = turn(ops.concatenate([right, -forward], axis=2), length)
        from_right = turn(recurrent(from_right, mask=mask), length)
        left = ops.concatenate([from_left, from_right], axis=2)
        right = ops.concatenate([from_right, from_left], axis=2)
    is_forward = forward > 0
    upstream = ops.where(is_forward, from_left, from_right)
    return upstream, ops.where(is_forward, from_right, from_left)


def losses(outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]) -> Any:
    """Return the loss and the weight of each window, for `common.training.fit`.

    The loss is the cross-entropy of each candidate with a known label, and of its start if it is a
    gene whose start is among the candidate's.
    """
    label, start = batch["gene"], batch["start"]
    known = tf.cast(label >= 0, tf.float32)
    target = tf.cast(label > 0, tf.float32)
    per_gene = tf.nn.sigmoid_cross_entropy_with_logits(target, outputs["gene"])
    has_start = tf.cast(start >= 0, tf.float32)
    log_probability = tf.gather(outputs["start"], tf.maximum(start, 0), batch_dims=2)
    values = known * per_gene - START_LOSS * has_start * log_probability
    return tf.reduce_sum(values, axis=1), tf.reduce_sum(known, axis=1)


LOSSES: Losses = losses
