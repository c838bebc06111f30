"""The tagger: features of words, letters and shapes, bidirectional recurrent layers, a CRF.

    text -> tokens, with their places     in the graph: one tokeniser for training and serving
      -> word vectors                     pretrained and fixed (GloVe 6B, 50-d), + learned for each
                                          training word
      -> word clusters                    the vector of the cluster of each word, fixed; names of
                                          places (`--gazetteer`)
      -> characters                       a convolution over three, the maximum over the word
      -> shape                            capitals, digits, marks: nine features
      -> bidirectional LSTM               --units each way; --layers for more
      -> CRF                              a tag may only follow where IOB2 allows it
      -> probabilities -> tags            the mean over ensemble members; the best valid path

With `config.members` above 1 the model is an ensemble: each of its networks has its own character
layer, recurrent layers and CRF, and `Committee` combines their predictions.

It is trained by the likelihood of the true tags, Adam with a learning rate that falls along half a
cosine, word, character, cluster and feature dropout, and a moving average of the weights, which is
scored and exported. In each epoch some names may be replaced by others of their type
(`--exchange`), some get a title (`--titles`), and some sentences are lower-cased (`--lower_case`).
A CRF that is trained on few names finds too few, so the probability of "no name" is multiplied by
a factor before the best path is chosen. The factor with the best F1 on the validation data is
chosen after each epoch, at no cost; `--outside_weight` sets another one. The confidence of a name
does not depend on this factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.crf import CRF, Scores, viterbi
from common.linear_chain import Chain, forward
from common.rnn import length_mask, stack
from common.training.fit import Losses
from common.word_clusters import LAYER as CLUSTERS
from common.word_clusters import ClusterFeatures
from common.word_embedding import WordEmbedding
from tasks.ner.config import Config

import keras
import numpy as np
import tensorflow as tf
from keras import ops

HEAD = "head"  # prefix of the layers that `--init` replaces if the tags differ
COMMITTEE = f"{HEAD}_committee"
EMBEDDING, SHAPE, GAZETTEER = "embedding", "shape", "gazetteer"
KINDS = ("upper", "lower", "digit", "other")  # character classes of `WordShape`


def iob2_transitions(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the valid transitions between tags in IOB2, and the valid first tags.

    Returns:
      `(transitions, start)`: `<bool>[tags, tags]`, whether the column's tag may follow the row's
      tag, and `<bool>[tags]`, whether a sentence may start with a tag.

    Example:
      >>> transitions, start = iob2_transitions(["O", "B-PER", "I-PER"])
      >>> transitions
      array([[ True,  True, False],
             [ True,  True,  True],
             [ True,  True,  True]])
      >>> start
      array([ True,  True, False])
    """
    inside = np.array([tag.startswith("I-") for tag in tags])
    same_type = np.array([[a[2:] == b[2:] for b in tags] for a in tags])
    return ~inside[None, :] | same_type, ~inside


@keras.saving.register_keras_serializable("tasks.ner")
class WordShape(keras.layers.Layer):
    """Features of a word's capitals, digits and punctuation.

    The features are 0 or 1:

    - the first character is a capital,
    - there are capitals and no lower-case letters,
    - there are lower-case letters and no capitals,
    - there is a capital after the first character,
    - there is a digit,
    - all characters are digits,
    - there is punctuation as well as letters or digits,
    - all characters are punctuation,
    - there is only one character.

    Args:
      characters: size of the character vocabulary.

    Call arguments:
      characters: `<int>[batch, time, word length]`, right-padded with 0; an id outside the
        vocabulary counts as unknown.

    Returns:
      `<float>[batch, time, 9]`; zeros for an empty word.

    Example:
      >>> layer = WordShape(characters=5)
      >>> layer.build((None, None, 3))
      >>> layer.fill(["<pad>", "<unk>", "a", "B", "7"])
      >>> print(layer(np.array([[[3, 2, 0], [4, 4, 4], [2, 0, 0]]])).numpy())   # Ba 777 a
      [[[1. 0. 0. 0. 0. 0. 0. 0. 0.]
        [0. 0. 0. 0. 1. 1. 0. 0. 0.]
        [0. 0. 1. 0. 0. 0. 0. 0. 1.]]]
    """

    def __init__(self, characters: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.characters = characters

    def build(self, characters_shape: tuple[int | None, ...]) -> None:
        """Create the table of character classes; `fill` sets it."""
        shape = (self.characters, len(KINDS))
        self.kinds = self.add_weight(shape, "zeros", trainable=False, name="kinds")

    def fill(self, characters: Sequence[str]) -> None:
        """Set the class of each character of the vocabulary.

        Args:
          characters: the vocabulary, from id 0. Padding (id 0) has no class, the unknown character
            (id 1) counts as punctuation.
        """
        rows = [
            (c.isupper(), c.islower(), c.isdigit(), not (c.isupper() or c.islower() or c.isdigit()))
            for c in characters[2:]
        ]
        self.kinds.assign(np.array([(0, 0, 0, 0), (0, 0, 0, 1), *rows], np.float32))

    def call(self, characters: tf.Tensor) -> tf.Tensor:
        """Return the features; see the class."""
        kinds = ops.take(self.kinds, _in_vocabulary(characters, self.characters), axis=0)
        upper, lower, digit, other = ops.unstack(ops.sum(kinds, axis=2), axis=-1)
        starts_upper = kinds[:, :, 0, 0]
        total = upper + lower + digit + other
        features = (
            starts_upper > 0,
            (upper > 0) & (lower == 0),
            (lower > 0) & (upper == 0),
            upper > starts_upper,
            digit > 0,
            (digit > 0) & (digit == total),
            (other > 0) & (other < total),
            (other > 0) & (other == total),
            total == 1,
        )
        return ops.cast(ops.stack(features, axis=-1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "characters": self.characters}


@keras.saving.register_keras_serializable("tasks.ner")
class CharacterCNN(keras.layers.Layer):
    """Features of a word's characters: a convolution of width 3 and the maximum over the word.

    Args:
      characters: size of the character vocabulary.
      dimension: dimension of the character vectors.
      filters: number of features.
      dropout: fraction of characters replaced by the unknown one (id 1) in training.

    Call arguments:
      characters: `<int>[batch, time, word length]`, right-padded with 0; an id outside the
        vocabulary counts as unknown.
      training: whether dropout is applied.

    Returns:
      `<float>[batch, time, filters]`; zeros for an empty word.

    Example:
      >>> layer = CharacterCNN(characters=30, dimension=4, filters=8)
      >>> layer(np.ones((2, 5, 20), "int32")).shape
      TensorShape([2, 5, 8])

    Reference:
      - [Ma and Hovy, 2016: End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF](
        https://arxiv.org/abs/1603.01354)
    """

    def __init__(
        self, characters: int, dimension: int, filters: int, dropout: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.characters, self.dimension = characters, dimension
        self.filters, self.dropout = filters, dropout
        self.seeds = keras.random.SeedGenerator()

    def build(self, characters_shape: tuple[int | None, ...]) -> None:
        """Create the character vectors and the convolution."""
        shape = (self.characters, self.dimension)
        self.vectors = self.add_weight(shape, "uniform", name="vectors")
        shape = (3 * self.dimension, self.filters)
        self.kernel = self.add_weight(shape, "glorot_uniform", name="kernel")
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def call(self, characters: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the features; see the class."""
        ids = _in_vocabulary(characters, self.characters)
        if training and self.dropout:
            draw = keras.random.uniform(ops.shape(ids), seed=self.seeds)
            ids = ops.where((draw < self.dropout) & (ids > 0), 1, ids)
        real = ops.cast(ids > 0, self.compute_dtype)[..., None]
        x = ops.take(self.vectors, ids, axis=0) * real
        padded = ops.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
        windows = ops.concatenate([padded[:, :, :-2], x, padded[:, :, 2:]], axis=-1)
        # After the relu no feature is negative, so the zeros of the padding never change a maximum.
        y = ops.relu(ops.matmul(windows, self.kernel) + self.bias) * real
        return ops.max(y, axis=2)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {
            **super().get_config(),
            "characters": self.characters,
            "dimension": self.dimension,
            "filters": self.filters,
            "dropout": self.dropout,
        }


def _in_vocabulary(ids: tf.Tensor, size: int) -> tf.Tensor:
    """Replace ids outside the vocabulary by 1, the unknown one."""
    ids = ops.cast(ids, "int32")
    return ops.where((ids >= 0) & (ids < size), ids, 1)


@keras.saving.register_keras_serializable("tasks.ner")
class Committee(keras.layers.Layer):
    """An ensemble of CRFs, one per member.

    The probability of a tag at a token is the mean of the members' CRF marginals. The decoded tags
    are the valid IOB2 path with the largest product of these probabilities. The confidence of a
    token of a decoded entity is the probability of the whole entity, with its type and both ends,
    of any other token that of `O`.

    Args:
      tags: names of the tags, in the order of their indices.
      members: number of ensemble members.
      outside_weight: factor on the probability of `O` before decoding.

    Call arguments:
      emissions: `<float>[batch, members, time, tags]`.
      length: `<int>[batch]`, tokens of each row.

    Returns:
      `(<int32>[batch, time] tags, <float32>[batch, time, tags] probabilities,
      <float32>[batch, time] confidence)`, all 0 after `length`.

    Example:
      >>> layer = Committee(["O", "B-PER", "I-PER"], members=2)
      >>> tags, probabilities, _ = layer(np.zeros((1, 2, 2, 3), "float32"), np.array([2]))
      >>> print(probabilities.numpy().round(2))     # five valid paths: OO, OB, BO, BB, BI
      [[[0.4 0.6 0. ]
        [0.4 0.4 0.2]]]
    """

    def __init__(
        self, tags: Sequence[str], members: int = 1, outside_weight: float = 1.0, **kwargs: Any
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.tags, self.members, self.outside_weight = list(tags), members, outside_weight
        transitions, start = iob2_transitions(self.tags)
        self.crfs = [
            CRF(len(self.tags), transitions, start, name=f"crf_{number}")
            for number in range(members)
        ]

    def build(self, emissions_shape: Sequence[int | None], *_: Any) -> None:
        """Build the CRFs of the members."""
        for crf in self.crfs:
            crf.build((None, None, len(self.tags)))

    def call(
        self, emissions: tf.Tensor, length: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return tags, probabilities and confidence; see the class."""
        marginals = [crf.marginals(emissions[:, n], length) for n, crf in enumerate(self.crfs)]
        probabilities = tf.add_n(marginals) / self.members
        tags = self.decode(probabilities, length, self.outside_weight)
        confidence = [
            path_confidence(emissions[:, n], marginals[n], tags, length, crf, self.tags)
            for n, crf in enumerate(self.crfs)
        ]
        return tags, probabilities, tf.add_n(confidence) / self.members

    def decode(
        self, probabilities: tf.Tensor, length: tf.Tensor, outside_weight: float | tf.Tensor
    ) -> tf.Tensor:
        """Return the best valid path through the probabilities of tags.

        Args:
          probabilities: `<float>[batch, time, tags]`.
          length: `<int>[batch]`.
          outside_weight: factor on the probability of `O`: one, or `<float>[batch]`.
        """
        outside = np.array([tag == "O" for tag in self.tags])
        weight = tf.where(outside, tf.reshape(outside_weight, [-1, 1, 1]), 1.0)
        logits = tf.math.log(tf.maximum(probabilities, 1e-9) * weight)
        states = len(self.tags)
        no_scores = Scores(tf.zeros((states, states)), tf.zeros(states), tf.zeros(states))
        return viterbi(logits, length, no_scores, self.crfs[0].constraints)[0]

    def log_likelihood(self, emissions: tf.Tensor, tags: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Return the log-likelihood of tags, `<float32>[batch]`, summed over the members."""
        values = [
            crf.log_likelihood(emissions[:, n], tags, length) for n, crf in enumerate(self.crfs)
        ]
        return tf.add_n(values)

    def compute_output_spec(
        self, emissions: keras.KerasTensor, length: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Return the shapes and types of tags, probabilities and confidence."""
        batch, _, time, tags = emissions.shape
        return (
            keras.KerasTensor((batch, time), dtype="int32"),
            keras.KerasTensor((batch, time, tags), dtype="float32"),
            keras.KerasTensor((batch, time), dtype="float32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {
            **super().get_config(),
            "tags": self.tags,
            "members": self.members,
            "outside_weight": self.outside_weight,
        }


def path_confidence(
    emissions: tf.Tensor,
    marginals: tf.Tensor,
    tags: tf.Tensor,
    length: tf.Tensor,
    crf: CRF,
    names: Sequence[str],
) -> tf.Tensor:
    """Return the probability of the entity, or of the `O`, to which each token of a path belongs.

    The probability of an entity sums over all paths that mark exactly these tokens with this type.
    The states of a CRF, read from the last to the first, form a Markov chain, whose transition
    probabilities follow from the forward scores. So an entity from token a to token b has the
    probability p(tag b, no continuation) times the product of p(tag t | tag t + 1) for a <= t < b.

    Args:
      emissions: `<float>[batch, time, tags]`.
      marginals: `<float32>[batch, time, tags]`, of the CRF.
      tags: `<int32>[batch, time]`, a valid path.
      length: `<int>[batch]`.
      crf: the CRF.
      names: names of the tags, in the order of their indices.

    Returns:
      `<float32>[batch, time]`, 0 after `length`.
    """
    chain = Chain(emissions, length, crf.scores, crf.constraints)
    _, _, alphas = chain.run(
        forward, chain.emissions, chain.real, chain.incoming, chain.start, chain.end
    )
    alphas = chain.to_rows(alphas)
    inside = [names.index(f"I-{name[2:]}") if name != "O" else -1 for name in names]
    continuing = tf.gather(inside, tags)  # the tag that would continue the entity; -1 for O
    is_inside = tf.gather(tf.constant([name.startswith("I-") for name in names]), tags)
    real = tf.sequence_mask(length, tf.shape(tags)[1])
    following = tf.pad(tags[:, 1:], [[0, 0], [0, 1]])  # O follows the last token
    continues = tf.pad(is_inside[:, 1:] & real[:, 1:], [[0, 0], [0, 1]])
    following_marginals = tf.pad(marginals[:, 1:], [[0, 0], [0, 1], [0, 0]])
    to_state = tf.transpose(crf.constraints.apply(crf.scores).transitions)

    def given_next(state: tf.Tensor) -> tf.Tensor:
        """Return log p(tag of the path at t | `state` at t + 1)."""
        scores = alphas + tf.gather(to_state, state)
        chosen = tf.gather(scores, tags, batch_dims=2)
        return chosen - tf.reduce_logsumexp(scores, axis=-1)

    marginal = tf.gather(marginals, tags, batch_dims=2)
    after = tf.maximum(continuing, 0)
    longer = tf.gather(following_marginals, after, batch_dims=2) * tf.exp(given_next(after))
    ending = tf.maximum(marginal - tf.where(continuing >= 0, longer, 0.0), 1e-30)
    steps = tf.where(continues, given_next(following), tf.math.log(ending))
    # The tokens of an entity are a segment, and so is any other token.
    segments = tf.reshape(tf.cumsum(tf.reshape(tf.cast(~is_inside, tf.int32), [-1])), [-1]) - 1
    segments = tf.maximum(segments, 0)
    total = tf.math.unsorted_segment_sum(tf.reshape(steps, [-1]), segments, tf.size(segments))
    values = tf.exp(tf.reshape(tf.gather(total, segments), tf.shape(tags)))
    return tf.where(real, tf.minimum(values, 1.0), 0.0)


def lookups_of(config: Config) -> list[str]:
    """Return the names of the layers with features of whole words that the settings ask for."""
    used = {CLUSTERS: config.clusters, GAZETTEER: config.gazetteer}
    return [name for name, source in used.items() if source != "none"]


def build(
    config: Config,
    embedding: WordEmbedding,
    shape: WordShape,
    lookups: Sequence[ClusterFeatures] = (),
    *,
    tags: Sequence[str],
) -> keras.Model:
    """Build the tagger.

    Args:
      config: the architecture.
      embedding: the word vectors of `config.members` members.
      shape: the shape features of a word; shared by the members.
      lookups: the layers of `lookups_of`, also shared.
      tags: names of the tags, in the order of their indices.

    Returns:
      A functional model. Inputs: `words` `<int32>[batch, time]`, `characters`
      `<int32>[batch, time, word length]`, `length` `<int32>[batch]`. Outputs: `tags`
      `<int32>[batch, time]`, `probabilities` `<float32>[batch, time, tags]` and `confidence`
      `<float32>[batch, time]`, all 0 after `length`, and `emissions` `<float32>[batch, members,
      time, tags]`, the input of the loss.

    Example:
      >>> embedding = WordEmbedding(words=50, learnt_words=50, dimension=8)
      >>> shape = WordShape(characters=30)
      >>> model = build(Config(units=4), embedding, shape, tags=["O", "B-PER", "I-PER"])
      >>> {name: tensor.shape for name, tensor in model.output.items()}
      {'tags': (None, None), 'probabilities': (None, None, 3), 'confidence': (None, None),
       'emissions': (None, 1, None, 3)}
    """
    words = keras.Input((None,), dtype="int32", name="words")
    characters = keras.Input((None, config.word_length), dtype="int32", name="characters")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, words)
    shared = [shape(characters), *(lookup(words) for lookup in lookups)]
    emissions = []
    for number, vectors in enumerate(embedding(words)):
        spelling = CharacterCNN(
            shape.characters,
            config.character_dimension,
            config.character_filters,
            dropout=config.character_dropout,
            name=f"characters_{number}",
        )(characters)
        x = keras.layers.Concatenate()([vectors, spelling, *shared])
        x = keras.layers.Dropout(config.embedding_dropout)(x)
        x = stack(
            config.cell,
            config.units,
            config.layers,
            bidirectional=True,
            dropout=config.dropout,
            name=f"encoder_{number}",
        )(x, mask=mask)
        x = keras.layers.Dropout(config.dropout)(x)
        emissions.append(keras.layers.Dense(len(tags), dtype="float32", name=f"{HEAD}_{number}")(x))
    stacked = ops.stack(emissions, axis=1)
    ensemble = Committee(tags, config.members, config.outside_weight or 1.0, name=COMMITTEE)
    decoded, probabilities, confidence = ensemble(stacked, length)
    return keras.Model(
        {"words": words, "characters": characters, "length": length},
        {
            "tags": decoded,
            "probabilities": probabilities,
            "confidence": confidence,
            "emissions": stacked,
        },
        name="ner",
    )


def pack(model: keras.Model, config: Config, *, tags: Sequence[str]) -> keras.Model:
    """Return a copy of a trained model whose word vectors are stored in 4 bits, for an export.

    Args:
      model: the model, made by `build`.
      config: its architecture.
      tags: names of the tags.
    """
    shape, embedding = model.get_layer(SHAPE), model.get_layer(EMBEDDING).pack()
    lookups = [model.get_layer(name) for name in lookups_of(config)]
    packed = build(config, embedding, shape, lookups, tags=tags)
    for layer in packed.layers:
        if layer.weights and layer not in (shape, *lookups, embedding):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    packed.get_layer(COMMITTEE).outside_weight = model.get_layer(COMMITTEE).outside_weight
    return packed


def make_losses(model: keras.Model) -> Losses:
    """Return the negative log-likelihood of the true tags as a loss for `common.training.fit`."""
    ensemble = model.get_layer(COMMITTEE)

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # A sum, not a mean, over the members: each learns as fast as it would alone.
        values = ensemble.log_likelihood(outputs["emissions"], batch["tags"], batch["length"])
        return -values, tf.ones_like(values)

    return losses
