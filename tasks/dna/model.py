"""The gene finder: convolutions over bases, recurrent layers over steps of nine bases, a CRF.

    sequence -> bases                in the graph; IUPAC letters as fractions of A, C, G, T
      -> counted statistics          words of six bases in each codon position, motifs of signals
      -> convolutions, 48 wide       at every base, over bases and statistics
      -> strided convolution         a step every 9 bases, so that codons keep their phase
      -> 2 bidirectional LSTMs       128 units each way: thousands of bases of context
      -> back to bases, joined with the convolutions: what to add to the statistics
      -> CRF                         67 states; every path is a sequence of valid genes

The states of the CRF (`tasks.dna.grammar`) make every predicted gene valid: a start codon, a stop
codon, none in frame, also not one that an intron splits, and introns GT..AG or GC..AG.

Training reverses records at random; an export reads every piece in both directions and averages the
two. The network reads pieces of 14,400 bases with 1,800 bases of context on each side, and one
Viterbi decodes the whole record (`tasks.dna.streaming`).

The model begins as a hidden Markov model: the statistics, the transitions and the ends of records
are counted in the training genes before the first step. On a few hundred genes this is most of the
score. Training maximises the likelihood of the known genes under the CRF with a softmax margin
(Gimpel & Smith 2010), plus a cross-entropy of single bases, with Adam along half a cosine and a
moving average of the weights. Genes that break the grammar are counted and excluded from the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.crf import CRF, LOW, Scores, log_likelihood_of_set
from common.rnn import length_mask, stack
from common.training.fit import Losses
from tasks.dna import sequence_statistics
from tasks.dna.config import STRIDE, Config
from tasks.dna.grammar import UNKNOWN, Grammar, make_grammar
from tasks.dna.nucleotides import COMPLEMENT, FRACTIONS
from tasks.dna.paths import EncodedRecords
from tasks.dna.sequence_statistics import REACH, WORDS, words_of

import keras
import numpy as np
import tensorflow as tf
from keras import ops

HEAD = "channels"


# --- layers ---------------------------------------------------------------------------------------


def _whole_steps(time: int | None) -> int | None:
    """Return a static length rounded up to whole recurrent steps, in bases."""
    return None if time is None else -(-time // STRIDE) * STRIDE


def _pad_to_steps(bases: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pad bases to whole recurrent steps; return them, 0 in the padding, and the mask of bases."""
    bases = tf.convert_to_tensor(bases)
    bases = tf.pad(bases, [[0, 0], [0, -ops.shape(bases)[1] % STRIDE]])
    inside = _inside(bases, length)
    return tf.where(inside, bases, 0), inside


def _inside(bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return the mask of right-padded rows, `<bool>[batch, time]`."""
    return tf.range(tf.shape(bases)[1])[None, :] < tf.cast(length, tf.int32)[:, None]


@keras.saving.register_keras_serializable("tasks.dna")
class Bases(keras.layers.Layer):
    """Bases as fractions of A, C, G and T, padded to whole recurrent steps.

    Call arguments:
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`.
      length: `<int32>[batch]`, real bases of each row.

    Returns:
      The fractions `<float>[batch, steps * 9, 4]`, 0 in the padding, and the mask of real bases
      `<float>[batch, steps * 9, 1]`.

    Example:
      >>> fractions, mask = Bases()(np.array([[1, 15]]), np.array([2]))    # A, N
      >>> fractions.shape, fractions[0, :3].numpy().tolist(), mask[0, :3, 0].numpy().tolist()
      (TensorShape([1, 9, 4]), [[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25],
                                [0.0, 0.0, 0.0, 0.0]], [1.0, 1.0, 0.0])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, bases: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Look up the fractions of each base."""
        bases, inside = _pad_to_steps(bases, length)
        fractions = tf.gather(tf.constant(FRACTIONS), bases)
        mask = ops.cast(inside, self.compute_dtype)[..., None]
        return ops.cast(fractions, self.compute_dtype), mask

    def compute_output_spec(
        self, bases: keras.KerasTensor, length: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the shapes of fractions and mask."""
        del length
        shape = bases.shape[0], _whole_steps(bases.shape[1])
        fractions = keras.KerasTensor((*shape, 4), dtype=self.compute_dtype)
        return fractions, keras.KerasTensor((*shape, 1), dtype=self.compute_dtype)


class _GrammarLayer(keras.layers.Layer):
    """Base of the layers that depend on the grammar; they compute in float32.

    Args:
      starts: as in `grammar.Grammar`.
    """

    def __init__(self, starts: Sequence[str], **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.starts = tuple(starts)
        self.grammar = make_grammar(self.starts)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "starts": self.starts}


@keras.saving.register_keras_serializable("tasks.dna")
class Statistics(_GrammarLayer):
    """Log-odds of words of six bases and of motifs around signals, for both strands.

    For codon positions and introns, the score of a base is the log-odds of the base given the five
    preceding ones, relative to intergenic DNA (Borodovsky & McIninch 1993). For start codons, stop
    codons and splice sites, it is the sum of the log-odds of the surrounding bases (Staden 1984).
    `fill` sets the tables, which are counted in training records. Only one factor per channel is
    learned.

    Args:
      starts: as in `grammar.Grammar`.

    Call arguments:
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`.
      length: `<int32>[batch]`, real bases of each row.

    Returns:
      `<float32>[batch, steps * 9, channels]`, padded as by `Bases`, 0 in the padding.
    """

    def build(self, *_: Any) -> None:
        """Create the tables, all 0, and the factors, all 1."""
        count = len(self.grammar.strand_channels)
        self.words = self.add_weight((WORDS + 1, count), "zeros", trainable=False, name="words")
        self.motifs = self.add_weight(
            (2 * REACH + 1, 4, count), "zeros", trainable=False, name="motifs"
        )
        self.factors = self.add_weight((count,), "ones", name="factors")

    def fill(self, words: np.ndarray, motifs: np.ndarray) -> None:
        """Set the tables: `sequence_statistics.word_scores` and `motif_scores`."""
        self.words.assign(words)
        self.motifs.assign(motifs)

    def call(self, bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Look up the scores of both strands."""
        bases, inside = _pad_to_steps(bases, length)
        other = tf.gather(tf.constant(COMPLEMENT), tf.reverse(bases, [1]))
        forward, reverse = self._scores(bases), tf.reverse(self._scores(other), [1])
        scores = tf.concat([tf.zeros_like(forward[..., :1]), forward, reverse], axis=-1)
        return tf.where(inside[..., None], scores, 0.0)

    def _scores(self, bases: tf.Tensor) -> tf.Tensor:
        """Return the scores of the forward strand, `<float32>[batch, time, strand_channels]`."""
        scores = tf.gather(tf.convert_to_tensor(self.words), words_of(bases))
        fractions = tf.gather(tf.constant(FRACTIONS), bases)
        scores += tf.nn.conv1d(fractions, tf.convert_to_tensor(self.motifs), 1, "SAME")
        return scores * tf.convert_to_tensor(self.factors)

    def compute_output_spec(
        self, bases: keras.KerasTensor, length: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the shape of the scores."""
        del length
        shape = bases.shape[0], _whole_steps(bases.shape[1]), len(self.grammar.channels)
        return keras.KerasTensor(shape, dtype="float32")


@keras.saving.register_keras_serializable("tasks.dna")
class Unfold(keras.layers.Layer):
    """Split the features of each step over its bases: `[batch, steps, 9 n] -> [.., steps * 9, n]`.

    The mask of steps does not fit the bases, and is removed.

    Example:
      >>> Unfold()(np.zeros((1, 2, 18))).shape
      TensorShape([1, 18, 2])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Reshape the features."""
        del mask
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1] // STRIDE))

    def compute_mask(self, x: tf.Tensor, mask: tf.Tensor | None = None) -> None:
        """Return no mask."""

    def compute_output_spec(
        self, x: keras.KerasTensor, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Return the shape of the features of bases."""
        del mask
        steps = None if x.shape[1] is None else x.shape[1] * STRIDE
        return keras.KerasTensor((x.shape[0], steps, x.shape[2] // STRIDE), dtype=x.dtype)


@keras.saving.register_keras_serializable("tasks.dna")
class Crop(keras.layers.Layer):
    """Shorten a sequence to the length of another one.

    Call arguments:
      x: `<float>[batch, long, n]`.
      like: `[batch, time, ...]`; only its length is used.

    Returns:
      `<float>[batch, time, n]`.
    """

    def call(self, x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Return the first `time` steps of `x`."""
        return x[:, : ops.shape(like)[1]]

    def compute_output_spec(
        self, x: keras.KerasTensor, like: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the shape of the shortened sequence."""
        return keras.KerasTensor((x.shape[0], like.shape[1], x.shape[2]), dtype=x.dtype)


@keras.saving.register_keras_serializable("tasks.dna")
class Emissions(_GrammarLayer):
    """Score of each state at each base: the sum of its channels, `LOW` where the base forbids it.

    Args:
      starts: as in `grammar.Grammar`.

    Call arguments:
      channels: `<float>[batch, time, channels]`.
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`.
      length: `<int32>[batch]`, real bases of each row.

    Returns:
      `<float32>[batch, time, states]`.
    """

    def call(self, channels: tf.Tensor, bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Sum the channels of each state, and forbid states."""
        bases = tf.convert_to_tensor(bases)
        scores = tf.tensordot(tf.cast(channels, tf.float32), tf.constant(self.grammar.mixing), 1)
        return tf.where(self.grammar.allowed(bases, _inside(bases, length)), scores, LOW)

    def compute_output_spec(
        self, channels: keras.KerasTensor, bases: keras.KerasTensor, length: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the shape of the scores."""
        del bases, length
        return keras.KerasTensor((*channels.shape[:2], self.grammar.states), dtype="float32")


# --- model ----------------------------------------------------------------------------------------


def build(config: Config) -> keras.Model:
    """Build the gene finder.

    Args:
      config: the architecture.

    Returns:
      A functional model. Inputs: `bases` `<int32>[batch, time]` (codes of `nucleotides.encode`) and
      `length` `<int32>[batch]`. Outputs: `channels` `<float32>[batch, time, channels]`, the scores
      of `Grammar.channels` for the CRF; `single`, logits of the same channels for each base alone,
      used only in training; `states` `<int32>[batch, time]`, the best valid path.
    """
    grammar = make_grammar(config.start_codons)
    bases = keras.Input((None,), dtype="int32", name="bases")
    length = keras.Input((), dtype="int32", name="length")
    x, mask = Bases(name="bases_in")(bases, length)
    statistics = Statistics(config.start_codons, name="statistics")(bases, length)
    x = keras.layers.Concatenate(name="seen")([x, statistics])
    for number in range(config.convolutions):
        # Zero padding after each convolution, so that it looks like the end of the record.
        convolution = keras.layers.Conv1D(
            config.filters, config.kernel, padding="same", activation="relu", name=f"conv_{number}"
        )
        y = convolution(x) * mask
        x = y if number == 0 else x + y
    context = _context(config, x, length)
    x = keras.layers.Concatenate()([x, context])
    x = keras.layers.Dense(config.filters, activation="relu", name="join")(x) * mask
    x = keras.layers.Conv1D(config.filters, 5, padding="same", activation="relu", name="smooth")(x)
    count = len(grammar.channels)
    # All weights are 0 at first: the scores start as the statistics alone.
    head = keras.layers.Dense(count, kernel_initializer="zeros", dtype="float32", name=HEAD)
    channels = head(x) + statistics
    bias = keras.initializers.Constant(np.where(grammar.is_signal, -4.0, 0.0).astype(np.float32))
    single = keras.layers.Dense(count, bias_initializer=bias, dtype="float32", name="single")(x)
    single = Crop(dtype="float32", name="crop_single")(single, bases)
    channels = Crop(dtype="float32", name="crop")(channels, bases)
    emissions = Emissions(config.start_codons, name="emissions")(channels, bases, length)
    crf = CRF(grammar.states, grammar.constraints.transitions, name="crf")
    states = crf(emissions, length)
    # Counted, not learned: training windows do not begin or end where records do.
    crf.start.trainable = crf.end.trainable = False
    return keras.Model(
        {"bases": bases, "length": length},
        {"channels": channels, "single": single, "states": states},
        name="dna",
    )


def _context(config: Config, x: keras.KerasTensor, length: keras.KerasTensor) -> keras.KerasTensor:
    """Run the recurrent layers over steps of nine bases, and return features of single bases."""
    steps = keras.layers.Conv1D(
        config.units, 2 * STRIDE, strides=STRIDE, padding="same", activation="relu", name="steps"
    )(x)
    steps = keras.layers.Dropout(config.dropout)(steps)
    mask = length_mask((length + STRIDE - 1) // STRIDE, steps)
    steps = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=True,
        dropout=config.dropout,
        name="context",
    )(steps, mask=mask)
    steps = keras.layers.Dropout(config.dropout)(steps)
    # Each base of a step has features of its own, since its codon position is its own.
    width = config.filters // 2
    return Unfold(name="unfold")(keras.layers.Dense(STRIDE * width, name="spread")(steps))


def fill(model: keras.Model, encoded: EncodedRecords) -> None:
    """Initialise the statistics, transitions and record ends with counts of training records.

    Args:
      model: a model of `build`; changed in place.
      encoded: the training records.
    """
    model.get_layer("statistics").fill(
        sequence_statistics.word_scores(encoded), sequence_statistics.motif_scores(encoded)
    )
    layer = model.get_layer("crf")
    counts = sequence_statistics.transition_counts(encoded)
    counts = counts + layer.constraints.transitions  # a pseudocount for each valid transition
    layer.transitions.assign(np.log(counts / counts.sum(axis=1, keepdims=True) + 1e-9))
    edges = sequence_statistics.edge_scores(encoded)
    for weight, scores in zip((layer.start, layer.end), edges, strict=True):
        weight.assign(scores)


# --- loss -----------------------------------------------------------------------------------------


def make_losses(model: keras.Model, config: Config) -> Losses:
    """Return the loss function of `fit`: likelihood of the genes and cross-entropy of single bases.

    The likelihood is that of all paths with the labelled states, relative to all paths. Every path
    gets a bonus of `config.margin` for each base that it labels wrongly (softmax-margin, Gimpel &
    Smith 2010). With the likelihood alone, many doubtful placements of a gene share its
    probability, and the best single path has no gene.

    The cross-entropy, times `config.base_loss`, is that of the channels that exclude each other
    (intergenic, codon positions, introns), and of the logit of each signal. It has a head of its
    own: in the sum over bases that the CRF computes, the evidence of a thousand single bases would
    outweigh that of the signals.
    """
    grammar = make_grammar(config.start_codons)
    emissions_of, crf = model.get_layer("emissions"), model.get_layer("crf")
    labels = tf.constant(grammar.labels)
    cross_entropy = _cross_entropy(grammar)

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        states, length = batch["states"], batch["length"]
        emissions = emissions_of(outputs["channels"], batch["bases"], length)
        labelled = states != UNKNOWN
        allowed = tf.one_hot(states, grammar.states, on_value=True, off_value=False)
        allowed |= ~labelled[..., None]
        # A window may begin and end with any state.
        edges = tf.zeros([grammar.states])
        scores = Scores(tf.convert_to_tensor(crf.transitions), edges, edges)
        true_states = tf.maximum(states, 0)
        label = tf.gather(labels, true_states)
        is_wrong = (labels != label[..., None]) & labelled[..., None]
        emissions = tf.where(is_wrong, emissions + config.margin, emissions)
        values = -log_likelihood_of_set(emissions, allowed, length, scores, crf.constraints)
        if config.base_loss:
            weights = tf.cast(labelled & _inside(states, length), tf.float32)
            per_base = cross_entropy(outputs["single"], true_states)
            values += config.base_loss * tf.reduce_sum(weights * per_base, axis=-1)
        return values, tf.cast(length, tf.float32)

    return losses


def _cross_entropy(grammar: Grammar) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the cross-entropy of single bases: a function of logits and states.

    The function maps `<float32>[batch, time, channels]` and `<int32>[batch, time]` to
    `<float32>[batch, time]`.
    """
    contexts = np.flatnonzero(~grammar.is_signal)  # channels of which exactly one is true at a base
    signals = np.flatnonzero(grammar.is_signal)
    context_of = tf.constant(np.argmax(grammar.mixing[contexts], axis=0).astype(np.int32))
    signals_of = tf.constant(grammar.mixing[signals].T)

    def cross_entropy(logits: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.gather(context_of, states), tf.gather(logits, contexts, axis=-1)
        )
        signal_values = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.gather(signals_of, states), tf.gather(logits, signals, axis=-1)
        )
        return values + tf.reduce_sum(signal_values, axis=-1)

    return cross_entropy
