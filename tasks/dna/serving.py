"""The exported signatures: sequence -> the label of each base."""

from __future__ import annotations

from typing import Any

from common import crf
from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import PORTABLE, Examples, Signatures, Target, same, shared
from tasks.dna.config import STRIDE, Config
from tasks.dna.genes import LABELS
from tasks.dna.grammar import CONTEXT as MARGIN
from tasks.dna.grammar import make_grammar
from tasks.dna.nucleotides import COMPLEMENT, encode
from tasks.dna.streaming import CONTEXT, PIECE

import keras
import numpy as np
import tensorflow as tf

MOST = 98_304  # bases of a request: its rows times the longest of them
LENGTHS = (900, 3_600, PIECE + 2 * CONTEXT)  # bases of the static networks of a TPU

# Requests that verify an export and warm a server up.
SAMPLES = ("AGCCCCTGTGAGGAACTAG", "ACGTTGCANNRYacgt" * 24, "", "ACGJ")


class GeneFinder:
    """The model and its decoder, as they are exported together.

    Args:
      model: a model of `tasks.dna.model.build`.
      config: its settings.
      target: the target of the export. The network is its core. Viterbi runs on the host: with
        static shapes each record would take as long as the longest possible one.
    """

    def __init__(self, model: keras.Model, config: Config, target: Target = PORTABLE):
        self.grammar = make_grammar(config.start_codons)
        self.max_length = config.max_length
        self.network = keras.Model(model.input, model.output["channels"])
        self.emissions, self.chain = model.get_layer("emissions"), model.get_layer("crf")
        self.core = target.core(
            "core",
            self.read_both_strands,
            timed=["bases"],
            steps={"channels": same},
            lengths=LENGTHS,
            batch=4,
        )

    def read_both_strands(self, bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the `channels` of a piece, averaged over it and its reverse complement."""
        bases = tf.where(tf.sequence_mask(length, tf.shape(bases)[1]), bases, 0)
        complement = tf.gather(tf.constant(COMPLEMENT), tf.reverse_sequence(bases, length, 1))
        both = {
            "bases": tf.concat([bases, complement], axis=0),
            "length": tf.maximum(tf.concat([length, length], axis=0), 1),
        }
        forward, reverse = tf.split(self.network(both, training=False), 2)
        swap = tf.constant(self.grammar.swap)
        reverse = tf.gather(tf.reverse_sequence(reverse, length, 1), swap, axis=-1)
        return {"channels": 0.5 * (tf.cast(forward, tf.float32) + tf.cast(reverse, tf.float32))}

    def channels(self, bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return the channels of rows, `<float32>[batch, bases, channels]`, piece by piece."""
        time, width = tf.shape(bases)[1], len(self.grammar.channels)
        size = tf.minimum(PIECE, -(-time // STRIDE) * STRIDE)
        count = -(-time // size)
        context = tf.where(count > 1, CONTEXT, 0)
        padded = tf.pad(bases, [[0, 0], [context, context + count * size - time]])
        pieces = tf.TensorArray(tf.float32, count, element_shape=[bases.shape[0], None, width])

        def body(k: tf.Tensor, pieces: tf.TensorArray) -> tuple[Any, ...]:
            # The context of the first piece would lie before the record: it has none.
            start = tf.maximum(k * size - context, 0)
            end = k * size + size + context
            piece = padded[:, context + start : context + end]
            inside = tf.clip_by_value(length - start, 0, end - start)
            channels = self.core(bases=piece, length=inside)["channels"]
            first = k * size - start
            return k + 1, pieces.write(k, channels[:, first : first + size])

        _, pieces = tf.while_loop(
            lambda k, _: k < count, body, (tf.constant(0), pieces), parallel_iterations=1
        )
        whole = tf.transpose(pieces.stack(), [1, 0, 2, 3])
        return tf.reshape(whole, [tf.shape(bases)[0], -1, width])[:, :time]

    def decode(self, bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return labels, states, probabilities and signals of rows of valid bases."""
        signals = self.channels(bases, length)
        emissions = self.emissions(signals, bases, length)
        states, _ = self.chain.viterbi(emissions, length)
        label_of = tf.constant(self.grammar.labels)
        to_label = tf.one_hot(label_of, len(LABELS))
        real = tf.sequence_mask(length, tf.shape(bases)[1])
        return {
            "length": length,
            "states": states,
            "probabilities": tf.tensordot(self.chain.marginals(emissions, length), to_label, 1),
            "signals": tf.where(real[..., None], signals, 0.0),
            "labels": tf.where(real, tf.gather(label_of, states), 0),
        }

    def computed(self, valid: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return which valid rows are computed, `<bool>[batch]`; see `signatures`."""
        valid &= (length > 0) & (length <= self.max_length)
        return within_budget(valid, length, MOST)

    def run(self, bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the outputs of `decode`; invalid rows have length 0, and 0 everywhere."""
        real = tf.sequence_mask(length, tf.shape(bases)[1])
        valid = length_fits(length, bases)
        valid &= tf.reduce_all(_is_base(bases) | ~real, axis=1)
        valid = self.computed(valid, length)
        inputs = {"bases": tf.where(_is_base(bases) & real, bases, 0), "length": length}
        steps = dict.fromkeys(("states", "probabilities", "signals", "labels"), same)
        return run_valid(
            self.decode, inputs, valid, fill={"length": 1}, timed=["bases"], steps=steps
        )

    def read_piece(self, bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return the channels of a piece of a long record; see `streaming.stream_path`."""
        length = tf.clip_by_value(length, 0, tf.shape(bases)[1])
        inputs = {"bases": tf.where(_is_base(bases), bases, 0), "length": length}
        valid = within_budget(length > 0, length, MOST)
        steps = {"channels": same}
        outputs = run_valid(
            self.core, inputs, valid, fill={"length": 1}, timed=["bases"], steps=steps
        )
        return outputs["channels"]

    def walk(
        self,
        bases: tf.Tensor,
        channels: tf.Tensor,
        beyond: tf.Tensor,
        before: tf.Tensor,
        first: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Return the outputs of `viterbi_piece`; 0 for rows that are not finite or too many."""
        length = tf.fill(tf.shape(before)[:1], tf.shape(channels)[1])
        valid = (length > 0) & tf.reduce_all(tf.math.is_finite(before), axis=1)
        valid &= tf.reduce_all(tf.math.is_finite(channels), axis=[1, 2])

        def run(bases: tf.Tensor, length: tf.Tensor, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            size = tf.shape(inputs["channels"])[1] + 2 * MARGIN
            return self.viterbi_piece(bases[:, :size], **inputs)

        return run_valid(
            run,
            {
                "bases": bases,
                "channels": channels,
                "beyond": beyond,
                "before": before,
                "first": first,
                "length": length,
            },
            within_budget(valid, length, MOST),
            fill={},
            timed=["channels"],
            steps={"pointers": same},
        )

    def viterbi_piece(
        self,
        bases: tf.Tensor,
        channels: tf.Tensor,
        beyond: tf.Tensor,
        before: tf.Tensor,
        first: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Run the forward pass of Viterbi over one piece of a long record.

        Args:
          bases: `<int32>[batch, time + 2 * MARGIN]`; `channels` has no margins.
          channels: `<float32>[batch, time, channels]`.
          beyond: `<int32>[batch, 2]`, number of bases of each margin outside the record.
          before: `<float32>[batch, states]`, the scores of the last base before the piece.
          first: `<bool>[batch]`, whether the piece is the first of its record.

        Returns:
          The scores `after` the last base, and `ended` if the record ends there, both
          `<float32>[batch, states]`; `pointers` `<int32>[batch, time, states]`.
        """
        time, size = tf.shape(channels)[1], tf.shape(bases)[1]
        steps = tf.range(size)[None, :]
        inside = (steps >= beyond[:, :1]) & (steps < size - beyond[:, 1:])
        allowed = self.grammar.allowed(tf.where(inside, bases, 0), inside)
        allowed = allowed[:, MARGIN : MARGIN + time]
        scores = tf.tensordot(channels, tf.constant(self.grammar.mixing), 1)
        emissions = tf.where(allowed, scores, crf.LOW)
        # The first step of any later piece is the last one of the piece before it.
        chain = self.chain
        earlier = (before - chain.scores.start)[:, None]
        row = tf.where(
            first[:, None, None],
            tf.concat([emissions, tf.zeros_like(earlier)], axis=1),
            tf.concat([earlier, emissions], axis=1),
        )
        length = tf.where(first, time, time + 1)
        after, _, pointers = crf.viterbi_forward(row, length, chain.scores, chain.constraints)
        pointers = tf.where(first[:, None, None], pointers[:, :-1], pointers[:, 1:])
        return {
            "after": after,
            "ended": after + chain.constraints.apply(chain.scores).end,
            "pointers": tf.cast(pointers, tf.int32),
        }


def signatures(model: keras.Model, config: Config, target: Target = PORTABLE) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `sequence` `<string>[batch]` -> `labels` `<string>[batch]`, one of `.CcIi`
      per base, and `probabilities` `<float32>[batch, bases, 5]` in that order: the marginals of the
      CRF, summed over the states of a label.
    - `tensors`: `bases` `<int32>[batch, time]`, `length` `<int32>[batch]` -> `labels`
      `<int32>[batch, time]` (indices), `probabilities`, and `states` `<int32>[batch, time]`, the
      path of the grammar, from which genes are read.
    - `explain`: `sequence` -> `labels`, `probabilities`, `signals` `<float32>[batch, bases,
      channels]`, the output of the network for each base.
    - `network` and `walk`: its two halves, for records of any length; see `streaming.stream_path`.

    The network reads a row in pieces with context on both sides, on both strands, and averages the
    two. One Viterbi decodes the whole row. A row without a base, with a letter outside IUPAC, with
    an invalid `length`, or of more than `config.max_length` bases has labels "" (or 0) and
    probabilities 0. So has a row beyond the budget of `MOST` bases; see
    `common.serving.rows.within_budget`.
    """
    finder = GeneFinder(model, config, target)
    run = shared(finder.run)
    letters = tf.constant([ord(letter) for letter in LABELS])
    sequence_spec = tf.TensorSpec([None], tf.string, name="sequence")
    bases_spec = tf.TensorSpec([None, None], tf.int32, name="bases")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    def label_text(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.strings.length(sequence)
        sequence = tf.where(finder.computed(length > 0, length), sequence, "")
        outputs = run(*encode_text(sequence))
        characters = tf.gather(letters, outputs["labels"])
        rows = tf.RaggedTensor.from_tensor(characters, outputs["length"])
        return {**outputs, "labels": tf.strings.unicode_encode(rows, "UTF-8")}

    @tf.function(input_signature=[sequence_spec])
    def serving_default(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = label_text(sequence)
        return {name: outputs[name] for name in ("labels", "probabilities")}

    @tf.function(input_signature=[bases_spec, length_spec])
    def tensors(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = run(bases, length)
        return {name: outputs[name] for name in ("labels", "probabilities", "states")}

    @tf.function(input_signature=[sequence_spec])
    def explain(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = label_text(sequence)
        return {name: outputs[name] for name in ("labels", "probabilities", "signals")}

    @tf.function(input_signature=[bases_spec, length_spec])
    def network(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"channels": finder.read_piece(bases, length)}

    channels_shape = [None, None, len(finder.grammar.channels)]
    walk_specs = [
        bases_spec,
        tf.TensorSpec(channels_shape, tf.float32, name="channels"),
        tf.TensorSpec([None, 2], tf.int32, name="beyond"),
        tf.TensorSpec([None, finder.grammar.states], tf.float32, name="before"),
        tf.TensorSpec([None], tf.bool, name="first"),
    ]
    walk = tf.function(finder.walk, input_signature=walk_specs)
    return {
        "serving_default": serving_default,
        "tensors": tensors,
        "explain": explain,
        "network": network,
        "walk": walk,
    }


def _is_base(bases: tf.Tensor) -> tf.Tensor:
    """Return which values are codes of IUPAC letters, `<bool>[batch, time]`."""
    return (bases > 0) & (bases < 16)


def encode_text(sequence: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Convert `<string>[batch]` to the codes of bases `<int32>[batch, time]` and the lengths."""
    codes = tf.constant(encode(bytes(range(256))))
    length = tf.strings.length(sequence)
    longest = tf.maximum(tf.reduce_max(tf.concat([length, [1]], axis=0)), 1)
    raw = tf.io.decode_raw(sequence, tf.uint8, fixed_length=longest)
    return tf.gather(codes, tf.cast(raw, tf.int32)), length


def examples(config: Config) -> Examples:
    """Return requests for each signature."""
    grammar = make_grammar(config.start_codons)
    random = np.random.default_rng(0)
    requests = [{"sequence": np.array(SAMPLES, object)}]
    batch = {"bases": (1 << random.integers(0, 4, (2, 450))).astype(np.int32)}
    batch["length"] = np.array([450, 200], np.int32)
    time = batch["bases"].shape[1] - 2 * MARGIN
    piece = {
        "bases": batch["bases"],
        "channels": random.normal(size=(2, time, len(grammar.channels))).astype(np.float32),
        "beyond": np.array([[MARGIN, 0], [0, MARGIN]], np.int32),
        "before": random.normal(size=(2, grammar.states)).astype(np.float32),
        "first": np.array([True, False]),
    }
    return {
        "serving_default": requests,
        "explain": requests,
        "tensors": [batch],
        "network": [batch],
        "walk": [piece],
    }
