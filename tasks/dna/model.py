"""The gene finder: convolutions over bases, recurrent layers over steps of nine, a CRF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.crf import CRF, LOW, Scores, log_likelihood_of_set
from common.rnn import length_mask, stack
from common.training.fit import Losses
from tasks.dna import genes
from tasks.dna.config import STRIDE, Config
from tasks.dna.data import Paths
from tasks.dna.genes import SHARES, SIGNALS, UNKNOWN, Grammar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

HEAD = "channels"


@keras.saving.register_keras_serializable("tasks.dna")
class Bases(keras.layers.Layer):
    """IUPAC letters as shares of A, C, G and T, filled up to whole steps of the recurrent layers.

    Call arguments:
        bases: `<int32>[batch, time]`, bits of `genes.encode`.
        length: `<int32>[batch]`.

    Returns:
        The shares `<float>[batch, steps * 9, 4]`, zero in the padding, and `<float>[batch, steps *
        9, 1]`, one at real bases.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, bases: Any, length: Any) -> tuple[Any, Any]:
        """Looks the letters up; see the class."""
        missing = -ops.shape(bases)[1] % STRIDE
        bases = tf.pad(tf.convert_to_tensor(bases), [[0, 0], [0, missing]])
        real = tf.range(tf.shape(bases)[1])[None, :] < tf.cast(length, tf.int32)[:, None]
        shares = tf.gather(tf.constant(SHARES), tf.where(real, bases, 0))
        return ops.cast(shares, self.compute_dtype), ops.cast(real, self.compute_dtype)[..., None]

    def compute_output_spec(self, bases: Any, length: Any) -> tuple[Any, Any]:
        """Shapes of the two."""
        del length
        batch, time = bases.shape
        time = None if time is None else -(-time // STRIDE) * STRIDE
        return tuple(keras.KerasTensor((batch, time, n), dtype=self.compute_dtype) for n in (4, 1))


@keras.saving.register_keras_serializable("tasks.dna")
class Statistics(keras.layers.Layer):
    """What gene finders have long counted: words of six bases, and motifs around the signals.

    For codon positions and introns each base gives the logarithm of how much more likely it is
    there than between genes, after the five bases before it (Borodovsky & McIninch 1993). For start
    and stop codons and splice sites it gives the same of the bases around, each by itself (Staden
    1984). `fill` takes the tables, counted in the training genes; only a factor for each channel is
    learnt.

    Args:
        spliced: as in `genes.Grammar`.
        starts: likewise.

    Call arguments:
        bases: `<int32>[batch, time]`, bits of `genes.encode`.
        length: `<int32>[batch]`.

    Returns:
        `<float>[batch, steps * 9, channels]`, time filled up as by `Bases`, 0 in the padding.
    """

    def __init__(self, spliced: bool, starts: Sequence[str], **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.spliced, self.starts = spliced, tuple(starts)
        self.grammar = genes.grammar(self.spliced, self.starts)

    def build(self, *_: Any) -> None:
        """Makes the tables, all 0 at first, and the factors, all 1."""
        count = len(self.grammar.channels) // 2
        self.words = self.add_weight(
            (genes.WORDS + 1, count), "zeros", trainable=False, name="words"
        )
        self.motifs = self.add_weight(
            (2 * genes.REACH + 1, 4, count), "zeros", trainable=False, name="motifs"
        )
        self.factors = self.add_weight((count,), "ones", name="factors")

    def fill(self, words: np.ndarray, motifs: np.ndarray) -> None:
        """Sets the tables; see `data.Paths.words` and `data.Paths.motifs`."""
        self.words.assign(words)
        self.motifs.assign(motifs)

    def call(self, bases: Any, length: Any) -> tf.Tensor:
        """Looks up on both strands; see the class."""
        bases = tf.convert_to_tensor(bases)
        bases = tf.pad(bases, [[0, 0], [0, -tf.shape(bases)[1] % STRIDE]])
        real = tf.range(tf.shape(bases)[1])[None, :] < tf.cast(length, tf.int32)[:, None]
        bases = tf.where(real, bases, 0)
        other = tf.gather(tf.constant(genes.COMPLEMENT), tf.reverse(bases, [1]))
        forward, reverse = self._read(bases), tf.reverse(self._read(other), [1])
        found = tf.concat([tf.zeros_like(forward[..., :1]), forward, reverse], axis=-1)
        return tf.where(real[..., None], found, 0.0)

    def _read(self, bases: tf.Tensor) -> tf.Tensor:
        """The channels of the forward strand."""
        word = genes.words_of(bases)
        shares = tf.gather(tf.constant(SHARES), bases)
        found = tf.gather(tf.convert_to_tensor(self.words), word)
        found += tf.nn.conv1d(shares, tf.convert_to_tensor(self.motifs), 1, "SAME")
        return found * tf.convert_to_tensor(self.factors)

    def compute_output_spec(self, bases: Any, length: Any) -> Any:
        """The shape."""
        del length
        batch, time = bases.shape
        time = None if time is None else -(-time // STRIDE) * STRIDE
        return keras.KerasTensor((batch, time, len(self.grammar.channels)), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "spliced": self.spliced, "starts": self.starts}


@keras.saving.register_keras_serializable("tasks.dna")
class Unfold(keras.layers.Layer):
    """Gives each step's features to its bases: `[batch, steps, 9 * n]` to `[batch, steps * 9, n]`.

    A mask of steps says nothing of bases, and ends here.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: Any, mask: Any = None) -> Any:
        """Reshapes; see the class."""
        del mask
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1] // STRIDE))

    def compute_mask(self, x: Any, mask: Any = None) -> None:
        """None."""

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        """The shape."""
        del mask
        steps = None if x.shape[1] is None else x.shape[1] * STRIDE
        return keras.KerasTensor((x.shape[0], steps, x.shape[2] // STRIDE), dtype=x.dtype)


@keras.saving.register_keras_serializable("tasks.dna")
class Crop(keras.layers.Layer):
    """Cuts a sequence to the steps of another: `(<float>[batch, long, n], [batch, time, ...])`."""

    def call(self, x: Any, like: Any) -> Any:
        """The first `time` steps of `x`."""
        return x[:, : ops.shape(like)[1]]

    def compute_output_spec(self, x: Any, like: Any) -> Any:
        """The shape."""
        return keras.KerasTensor((x.shape[0], like.shape[1], x.shape[2]), dtype=x.dtype)


@keras.saving.register_keras_serializable("tasks.dna")
class Emissions(keras.layers.Layer):
    """The score of each state at each base: sums of channels, `LOW` where the bases forbid it.

    Args:
        spliced: as in `genes.Grammar`.
        starts: likewise.

    Call arguments:
        channels: `<float>[batch, time, channels]`.
        bases: `<int32>[batch, time]`.
        length: `<int32>[batch]`.

    Returns:
        `<float32>[batch, time, states]`.
    """

    def __init__(self, spliced: bool, starts: Sequence[str], **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.spliced, self.starts = spliced, tuple(starts)
        self.grammar = genes.grammar(self.spliced, self.starts)

    def call(self, channels: Any, bases: Any, length: Any) -> tf.Tensor:
        """Mixes and masks; see the class."""
        bases = tf.convert_to_tensor(bases)
        inside = tf.range(tf.shape(bases)[1])[None, :] < tf.cast(length, tf.int32)[:, None]
        scores = tf.tensordot(tf.cast(channels, tf.float32), tf.constant(self.grammar.mixing), 1)
        return tf.where(self.grammar.allowed(bases, inside), scores, LOW)

    def compute_output_spec(self, channels: Any, bases: Any, length: Any) -> Any:
        """The shape."""
        del bases, length
        return keras.KerasTensor((*channels.shape[:2], self.grammar.states), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "spliced": self.spliced, "starts": self.starts}


def build(config: Config) -> keras.Model:
    """Builds the gene finder.

    Args:
      config: the architecture.

    Returns:
      A functional model. Inputs: `bases` `<int32>[batch, time]` (bits of `genes.encode`), `length`
      `<int32>[batch]`. Outputs: `channels` `<float32>[batch, time, channels]`, what the network
      makes of each base, in the order of `Grammar.channels`, for the CRF; `single`, the same for a
      base by itself, which only training asks for; `states` `<int32>[batch, time]`, the best legal
      path.
    """
    grammar = genes.grammar(config.spliced, config.start_codons)
    bases = keras.Input((None,), dtype="int32", name="bases")
    length = keras.Input((), dtype="int32", name="length")
    x, real = Bases(name="bases_in")(bases, length)
    statistics = Statistics(config.spliced, config.start_codons, name="statistics")(bases, length)
    x = keras.layers.Concatenate(name="seen")([x, statistics])
    for number in range(config.convolutions):
        # Padding is set to zero behind each convolution: it must look like the end of the record.
        conv = keras.layers.Conv1D(
            config.filters, config.kernel, padding="same", activation="relu", name=f"conv_{number}"
        )
        y = conv(x) * real
        x = y if number == 0 else x + y
    steps = keras.layers.Conv1D(
        config.units, 2 * STRIDE, strides=STRIDE, padding="same", activation="relu", name="steps"
    )(x)
    steps = keras.layers.Dropout(config.dropout)(steps)
    mask = length_mask((length + STRIDE - 1) // STRIDE, steps)
    context = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=True,
        dropout=config.dropout,
        name="context",
    )(steps, mask=mask)
    context = keras.layers.Dropout(config.dropout)(context)
    # Each step tells each of its nine bases something of its own: which position of a codon it is.
    width = config.filters // 2
    spread = keras.layers.Dense(STRIDE * width, name="spread")(context)
    spread = Unfold(name="unfold")(spread)
    joined = keras.layers.Concatenate()([x, spread])
    joined = keras.layers.Dense(config.filters, activation="relu", name="join")(joined) * real
    joined = keras.layers.Conv1D(
        config.filters, 5, padding="same", activation="relu", name="smooth"
    )(joined)
    count = len(grammar.channels)
    # The network begins as the statistics alone, and learns what to add.
    channels = keras.layers.Dense(count, kernel_initializer="zeros", dtype="float32", name=HEAD)(
        joined
    )
    channels = channels + statistics
    bias = np.where([c.rstrip("'") in SIGNALS for c in grammar.channels], -4.0, 0.0)
    single = keras.layers.Dense(
        count,
        bias_initializer=keras.initializers.Constant(bias.astype(np.float32)),
        dtype="float32",
        name="single",
    )(joined)
    single = Crop(dtype="float32", name="crop_single")(single, bases)
    channels = Crop(dtype="float32", name="crop")(channels, bases)
    emissions = Emissions(config.spliced, config.start_codons, name="emissions")(
        channels, bases, length
    )
    crf = CRF(grammar.states, grammar.constraints.transitions, name="crf")
    states = crf(emissions, length)
    # How records begin and end is counted; training windows, cut anywhere, tell nothing of it.
    crf.start.trainable = crf.end.trainable = False
    return keras.Model(
        {"bases": bases, "length": length},
        {"channels": channels, "single": single, "states": states},
        name="dna",
    )


def fill(model: keras.Model, paths: Paths) -> None:
    """Starts from what is counted in the training records: words, motifs, transitions, edges.

    Args:
      model: of `build`.
      paths: the training records.
    """
    model.get_layer("statistics").fill(paths.words(), paths.motifs())
    counts = paths.transition_counts()
    layer = model.get_layer("crf")
    counts = counts + layer.constraints.transitions  # none is impossible that the grammar allows
    layer.transitions.assign(np.log(counts / counts.sum(axis=1, keepdims=True) + 1e-9))
    for weight, scores in zip((layer.start, layer.end), paths.edges(), strict=True):
        weight.assign(scores)


def _contrasts(grammar: Grammar) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What single bases are trained towards: see `make_losses`.

    Returns:
      The channels of which one is true at a base; for each state the place of its own among them;
      and for each state which of the other channels, the signals, it has, `[states, signals]`.
    """
    is_signal = np.array([name.rstrip("'") in SIGNALS for name in grammar.channels])
    context = np.flatnonzero(~is_signal)
    own = np.argmax(grammar.mixing[context], axis=0).astype(np.int32)
    return context, own, grammar.mixing[is_signal].T


def make_losses(model: keras.Model, config: Config) -> Losses:
    """The likelihood of the genes, and a cross-entropy of each base, as `fit` takes them.

    The likelihood is of all paths that go through the known states, against all paths, which get
    `config.margin` for each base that they label wrongly (softmax-margin, Gimpel & Smith 2010):
    likelihood alone lets many doubtful ways to place a gene share its probability, so that the best
    single path has none. Beside it stand, times
    `config.base_loss`, the cross-entropy of each base's channel among those that exclude each other
    (intergenic, codon positions, introns), and of each signal's logit. It has a head of its own:
    what a base says by itself, said again by each of the thousand bases around it, would drown the
    signals in the sum that the CRF takes.
    """
    grammar = genes.grammar(config.spliced, config.start_codons)
    emissions_of, crf = model.get_layer("emissions"), model.get_layer("crf")
    context, own, signals = _contrasts(grammar)
    labels = tf.constant(grammar.labels)
    signal_places = np.setdiff1d(np.arange(len(grammar.channels)), context)

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        single, states, length = outputs["single"], batch["states"], batch["length"]
        emissions = emissions_of(outputs["channels"], batch["bases"], length)
        known = states != UNKNOWN
        inside = tf.one_hot(states, grammar.states, on_value=True, off_value=False)
        inside |= ~known[..., None]
        # A window is cut from the middle of something: it may begin and end with any state.
        anywhere = tf.zeros([grammar.states])
        scores = Scores(tf.convert_to_tensor(crf.transitions), anywhere, anywhere)
        # Rivals get a bonus for each base that they label wrongly.
        label = tf.gather(labels, tf.maximum(states, 0))
        wrong = (labels != label[..., None]) & known[..., None]
        rivals = tf.where(wrong, emissions + config.margin, emissions)
        values = -log_likelihood_of_set(rivals, inside, length, scores, crf.constraints)
        if config.base_loss:
            real = tf.range(tf.shape(states)[1])[None, :] < length[:, None]
            weight = tf.cast(known & real, tf.float32)
            truth = tf.maximum(states, 0)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.gather(tf.constant(own), truth), tf.gather(single, context, axis=-1)
            )
            each += tf.reduce_sum(
                tf.nn.sigmoid_cross_entropy_with_logits(
                    tf.gather(tf.constant(signals), truth),
                    tf.gather(single, signal_places, axis=-1),
                ),
                axis=-1,
            )
            values += config.base_loss * tf.reduce_sum(weight * each, axis=-1)
        return values, tf.cast(length, tf.float32)

    return losses
