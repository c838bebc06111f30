"""A sequence in, the label of each base out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common import crf
from common.serving.served import Served
from common.serving.targets import PORTABLE, Target, same, shared
from tasks.dna import genes
from tasks.dna.config import STRIDE, Config
from tasks.dna.genes import COMPLEMENT, LABELS, Grammar

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = "a small device needs one length, and a record has any, up to a whole genome's"
CONTEXT = 1_800  # bases on each side of a piece that the network also reads
PIECE = 14_400  # bases of a piece
READ = (900, 3_600, PIECE + 2 * CONTEXT)  # lengths for which a static network is made
MARGIN = 4  # bases around a piece by which `Grammar.allowed` judges its edges

# Requests with which an export is verified and warmed up.
SAMPLES = ("AGCCCCTGTGAGGAACTAG", "ACGTTGCANNRYacgt" * 24, "", "ACGJ")


def signatures(
    model: keras.Model, config: Config, target: Target = PORTABLE
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `sequence` `<string>[batch]` -> `labels` `<string>[batch]`, one of `.CcIi`
      a base, and `probabilities` `<float32>[batch, bases, 5]` in that order: the marginals of the
      CRF, summed over the states of a label.
    - `tensors`: `bases` `<int32>[batch, time]`, `length` `<int32>[batch]` -> `labels`
      `<int32>[batch, time]` (indices), `probabilities`, and `states` `<int32>[batch, time]`, the
      path of `genes.Grammar`, from which genes are read.
    - `explain`: `sequence` -> `labels`, `probabilities`, `signals` `<float32>[batch, bases,
      channels]`, what the network makes of each base.
    - `network` and `walk`: the two halves of it, for records of any length; see `walk_record`.

    The network reads a row in pieces with some context on each side, each also as its reverse
    complement, and the two readings are averaged. One Viterbi walks the whole row. A row without a
    base, with a letter that is not IUPAC, with a `length` that cannot be, or of more than
    `config.max_length` bases gets the empty answer: labels "" (or 0), probabilities 0.
    """
    grammar = genes.grammar(config.spliced, config.start_codons)
    network_of = keras.Model(model.input, model.output["channels"])
    emissions_of, chain = model.get_layer("emissions"), model.get_layer("crf")
    swap = tf.constant(grammar.swap)
    label_of = tf.constant(grammar.labels)
    letters = tf.constant([[ord(letter)] for letter in LABELS], tf.int32)
    to_label = tf.one_hot(label_of, len(LABELS))
    codes = tf.constant(genes.encode(bytes(range(256))))

    def read_both(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Channels of both readings of a piece, averaged."""
        real = tf.range(tf.shape(bases)[1])[None, :] < length[:, None]
        bases = tf.where(real, bases, 0)
        other = tf.gather(tf.constant(COMPLEMENT), tf.reverse_sequence(bases, length, seq_axis=1))
        both = {
            "bases": tf.concat([bases, other], axis=0),
            "length": tf.maximum(tf.concat([length, length], axis=0), 1),
        }
        one, turned = tf.split(network_of(both, training=False), 2)
        turned = tf.gather(tf.reverse_sequence(turned, length, seq_axis=1), swap, axis=-1)
        return {"channels": 0.5 * (tf.cast(one, tf.float32) + tf.cast(turned, tf.float32))}

    # The walk over a whole record stays on the host: with a static shape, each record would take
    # as long as the longest that is allowed.
    core = target.core(
        "core", read_both, timed=["bases"], steps={"channels": same}, lengths=READ, batch=4
    )

    def read(bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        return core(bases=bases, length=length)["channels"]

    def channels_of(bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Channels of whole rows, read in pieces."""
        time = tf.shape(bases)[1]
        size = tf.minimum(PIECE, -(-time // STRIDE) * STRIDE)
        count = -(-time // size)
        context = tf.where(count > 1, CONTEXT, 0)
        padded = tf.pad(bases, [[0, 0], [context, context + count * size - time]])
        answer = tf.TensorArray(
            tf.float32, count, element_shape=[bases.shape[0], None, len(grammar.channels)]
        )

        def body(k: tf.Tensor, answer: tf.TensorArray) -> tuple[Any, ...]:
            # The context before the first piece lies before the record: nothing is to be read.
            start = tf.maximum(k * size - context, 0)
            end = k * size + size + context
            piece = padded[:, context + start : context + end]
            found = read(piece, tf.clip_by_value(length - start, 0, end - start))
            from_ = k * size - start
            return k + 1, answer.write(k, found[:, from_ : from_ + size])

        _, answer = tf.while_loop(
            lambda k, _: k < count, body, (tf.constant(0), answer), parallel_iterations=1
        )
        whole = tf.transpose(answer.stack(), [1, 0, 2, 3])
        return tf.reshape(whole, [tf.shape(bases)[0], -1, len(grammar.channels)])[:, :time]

    @shared
    def run(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        # At least one row and one base: of none, convolutions and loops have no result.
        batch, true_time = tf.unstack(tf.shape(bases))
        bases = tf.pad(bases, [[0, tf.maximum(0, 1 - batch)], [0, tf.maximum(0, 1 - true_time)]])
        length = tf.pad(length, [[0, tf.maximum(0, 1 - batch)]])
        real = tf.range(tf.shape(bases)[1])[None, :] < length[:, None]
        answered = (length > 0) & (length <= true_time) & (length <= config.max_length)
        known = (bases > 0) & (bases < 16)
        answered &= tf.reduce_all(known | ~real, axis=1)
        bases = tf.where(known & real, bases, 0)
        length = tf.where(answered, length, 0)
        # What lies behind the longest row that is answered costs nothing.
        time = tf.reduce_max(tf.concat([length, [1]], axis=0))
        channels = channels_of(bases[:, :time], length)
        emissions = emissions_of(channels, bases[:, :time], length)
        states, _ = chain.viterbi(emissions, length)
        shares = tf.tensordot(chain.marginals(emissions, length), to_label, 1)
        found = {"states": states, "probabilities": shares, "signals": channels}
        real = tf.range(time)[None, :] < length[:, None]
        found["signals"] = tf.where(real[..., None], channels, 0.0)
        found["labels"] = tf.where(real, tf.gather(label_of, states), 0)
        missing = tf.maximum(true_time - time, 0)

        def fill(value: tf.Tensor) -> tf.Tensor:
            more = [[0, 0], [0, missing], *[[0, 0]] * (len(value.shape) - 2)]
            return tf.pad(value, more)[:batch, :true_time]

        return {"length": length[:batch], **{name: fill(value) for name, value in found.items()}}

    def from_text(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.strings.length(sequence)
        longest = tf.maximum(tf.reduce_max(tf.concat([length, [1]], axis=0)), 1)
        raw = tf.io.decode_raw(sequence, tf.uint8, fixed_length=longest)
        bases = tf.gather(codes, tf.cast(raw, tf.int32))
        found = run(bases, length)
        marks = tf.gather(letters, found["labels"])[..., 0]
        each = tf.RaggedTensor.from_tensor(marks, found["length"])
        found["labels"] = tf.strings.unicode_encode(each, "UTF-8")
        return found

    text = tf.TensorSpec([None], tf.string, name="sequence")
    bases_spec = tf.TensorSpec([None, None], tf.int32, name="bases")
    length_spec = tf.TensorSpec([None], tf.int32, name="length")

    @tf.function(input_signature=[text])
    def serving_default(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        found = from_text(sequence)
        return {name: found[name] for name in ("labels", "probabilities")}

    @tf.function(input_signature=[bases_spec, length_spec])
    def tensors(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        found = run(bases, length)
        return {name: found[name] for name in ("labels", "probabilities", "states")}

    @tf.function(input_signature=[text])
    def explain(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        found = from_text(sequence)
        return {name: found[name] for name in ("labels", "probabilities", "signals")}

    @tf.function(input_signature=[bases_spec, length_spec])
    def network(bases: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        batch, time = tf.unstack(tf.shape(bases))
        bases = tf.pad(bases, [[0, tf.maximum(0, 1 - batch)], [0, tf.maximum(0, 1 - time)]])
        length = tf.pad(length, [[0, tf.maximum(0, 1 - batch)]])
        bases = tf.where((bases > 0) & (bases < 16), bases, 0)
        found = read(bases, tf.clip_by_value(length, 0, time))
        return {"channels": found[:batch, :time]}

    @tf.function(
        input_signature=[
            bases_spec,
            tf.TensorSpec([None, None, len(grammar.channels)], tf.float32, name="channels"),
            tf.TensorSpec([None, 2], tf.int32, name="beyond"),
            tf.TensorSpec([None, grammar.states], tf.float32, name="before"),
            tf.TensorSpec([None], tf.bool, name="first"),
        ]
    )
    def walk(
        bases: tf.Tensor,
        channels: tf.Tensor,
        beyond: tf.Tensor,
        before: tf.Tensor,
        first: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """One piece of the Viterbi walk; `bases` has a margin on each side, `channels` has none.

        `beyond` tells how much of each margin lies beyond the record.
        """
        time = tf.shape(channels)[1]
        steps = tf.range(tf.shape(bases)[1])[None, :]
        inside = (steps >= beyond[:, :1]) & (steps < tf.shape(bases)[1] - beyond[:, 1:])
        allowed = grammar.allowed(tf.where(inside, bases, 0), inside)
        allowed = allowed[:, MARGIN : MARGIN + time]
        scores = tf.tensordot(channels, tf.constant(grammar.mixing), 1)
        emissions = tf.where(allowed, scores, crf.LOW)
        # A row that goes on has one step more: its first is the last one of the piece before.
        earlier = (before - chain.scores.start)[:, None]
        nothing = tf.zeros_like(earlier)
        row = tf.where(
            first[:, None, None],
            tf.concat([emissions, nothing], axis=1),
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

    return {
        "serving_default": serving_default,
        "tensors": tensors,
        "explain": explain,
        "network": network,
        "walk": walk,
    }


def examples(config: Config) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature."""
    grammar = genes.grammar(config.spliced, config.start_codons)
    random = np.random.default_rng(0)
    asked = [{"sequence": np.array(SAMPLES, object)}]
    batch = {"bases": (1 << random.integers(0, 4, (2, 450))).astype(np.int32)}
    batch["length"] = np.array([450, 200], np.int32)
    time = batch["bases"].shape[1] - 2 * MARGIN
    walked = {
        "bases": batch["bases"],
        "channels": random.normal(size=(2, time, len(grammar.channels))).astype(np.float32),
        "beyond": np.array([[MARGIN, 0], [0, MARGIN]], np.int32),
        "before": random.normal(size=(2, grammar.states)).astype(np.float32),
        "first": np.array([True, False]),
    }
    return {
        "serving_default": asked,
        "explain": asked,
        "tensors": [batch],
        "network": [batch],
        "walk": [walked],
    }


# --- records of any length ------------------------------------------------------------------------


def walk_record(served: Served, grammar: Grammar, bases: np.ndarray) -> Iterator[np.ndarray]:
    """The best path of a record of any length, in bounded memory: yields its states in pieces.

    The network reads piece by piece, and one Viterbi walks over all of them. Its pointers are kept
    only until all paths that are still in the race agree on what came before (they mostly do
    within a few genes), so the result is the same as that of one long walk.

    Args:
      served: the export.
      grammar: the export's.
      bases: `<int32>[bases]` of `genes.encode`, one or more.

    Yields:
      Stretches of the path, `<int32>[...]`, from the first base to the last.
    """
    size, index = len(bases), grammar.constraints.sources.index
    before = np.zeros(grammar.states, np.float32)
    pending: list[np.ndarray] = []  # pointers of the pieces whose states are not settled
    for start in range(0, size, PIECE):
        end = min(size, start + PIECE)
        low, high = max(0, start - CONTEXT), min(size, end + CONTEXT)
        read = served.call("network", bases=bases[None, low:high], length=[high - low])
        beyond = max(0, MARGIN - start), max(0, end + MARGIN - size)
        around = bases[max(0, start - MARGIN) : min(size, end + MARGIN)]
        step = served.call(
            "walk",
            bases=np.pad(around, beyond)[None],
            channels=read["channels"][:, start - low : end - low],
            beyond=[beyond],
            before=before[None],
            first=[start == 0],
        )
        before = step["after"][0]
        # Of each state at each base, the state at the base before.
        pointers = index[step["pointers"][0], np.arange(grammar.states)].astype(np.int16)
        if pending:
            origin = _origin(pointers, np.flatnonzero(before > crf.LOW / 2))
            if origin is not None:
                yield _trace(np.concatenate(pending), origin)[1:]
                pending = []
        pending.append(pointers)
        ended = step["ended"][0]
    yield _trace(np.concatenate(pending), int(np.argmax(ended)))[1:]


def _origin(pointers: np.ndarray, states: np.ndarray) -> int | None:
    """The state before the first of some steps, if the paths to all of `states` agree on it."""
    for number in range(len(pointers) - 1, -1, -1):
        states = np.unique(pointers[number, states])
        if len(states) == 1:
            return int(_trace(pointers[:number], int(states[0]))[0])
    return None


def _trace(pointers: np.ndarray, last: int) -> np.ndarray:
    """The path that ends in a state, `<int32>[1 + steps]`: the state before the steps, and theirs.

    What stands before the first step of a record means nothing.
    """
    path, item = np.empty(len(pointers) + 1, np.int32), pointers.item
    for number in range(len(pointers) - 1, -1, -1):
        path[number + 1] = last
        last = item(number, last)
    path[0] = last
    return path
