"""The tagger: words, their characters and shapes, bidirectional recurrent layers, a CRF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.crf import CRF, Scores, viterbi
from common.rnn import length_mask, stack
from common.training.fit import Losses
from common.word_embedding import WordEmbedding
from tasks.ner.config import Config

import keras
import numpy as np
import tensorflow as tf
from keras import ops

HEAD = "head"  # the layers that `--init` replaces where the tags differ
KINDS = ("upper", "lower", "digit", "other")  # of characters
SHAPES = 9


def iob2_transitions(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which tag may follow which, and which may begin a sentence, under IOB2.

    Returns:
      `<bool>[tags, tags]`, whether the column's tag may follow the row's, and `<bool>[tags]`.

    Example:
      >>> iob2_transitions(["O", "B-PER", "I-PER"])
      ([[True, True, False], [True, True, True], [True, True, True]], [True, True, False])
    """
    inside = np.array([tag.startswith("I-") for tag in tags])
    same_type = np.array([[a[2:] == b[2:] for b in tags] for a in tags])
    return ~inside[None, :] | same_type, ~inside


@keras.saving.register_keras_serializable("tasks.ner")
class WordShape(keras.layers.Layer):
    """What a word's capitals, digits and marks look like.

    The features are, each 0 or 1: begins with a capital; all letters are capitals; all are small; a
    capital behind the first character; a digit; nothing but digits; a mark beside letters or
    digits; nothing but marks; one character.

    Args:
      characters: size of the character vocabulary.

    Call arguments:
      characters: `<int>[batch, time, word length]`, 0 behind a word's end.

    Returns:
      `<float>[batch, time, 9]`; zeros for an empty word.
    """

    def __init__(self, characters: int, **kwargs: Any):
        """Makes the layer."""
        super().__init__(**kwargs)
        self.characters = characters

    def build(self, characters_shape: tuple[int | None, ...]) -> None:
        """Makes the table of each character's kind; `fill` sets it."""
        shape = (self.characters, len(KINDS))
        self.kinds = self.add_weight(shape, "zeros", trainable=False, name="kinds")

    def fill(self, characters: Sequence[str]) -> None:
        """Finds the kind of each character of the vocabulary; ids 0 and 1 are none.

        Args:
          characters: the vocabulary, from id 0 on.
        """
        rows = [
            (c.isupper(), c.islower(), c.isdigit(), not (c.isupper() or c.islower() or c.isdigit()))
            for c in characters[2:]
        ]
        self.kinds.assign(np.array([(0, 0, 0, 0), (0, 0, 0, 1), *rows], np.float32))

    def call(self, characters: Any) -> Any:
        """Counts; see the class."""
        kinds = ops.take(self.kinds, _inside(characters, self.characters), axis=0)
        upper, lower, digit, other = ops.unstack(ops.sum(kinds, axis=2), axis=-1)
        first = kinds[:, :, 0, 0]
        every = upper + lower + digit + other
        features = (
            first > 0,
            (upper > 0) & (lower == 0),
            (lower > 0) & (upper == 0),
            upper > first,
            digit > 0,
            (digit > 0) & (digit == every),
            (other > 0) & (other < every),
            (other > 0) & (other == every),
            every == 1,
        )
        return ops.cast(ops.stack(features, axis=-1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {**super().get_config(), "characters": self.characters}


@keras.saving.register_keras_serializable("tasks.ner")
class CharacterCNN(keras.layers.Layer):
    """A word's characters, summed up by a convolution over three and a maximum over all places.

    Args:
      characters: size of the character vocabulary.
      dimension: width of the character vectors.
      filters: width of the result.
      dropout: share of characters replaced by the unknown one (id 1), in training.

    Call arguments:
      characters: `<int>[batch, time, word length]`, 0 behind a word's end; an id outside the
        vocabulary counts as unknown.
      training: whether characters are dropped.

    Returns:
      `<float>[batch, time, filters]`; zeros for an empty word.

    Reference:
      - Ma and Hovy, 2016: End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF
        (https://arxiv.org/abs/1603.01354)
    """

    def __init__(
        self, characters: int, dimension: int, filters: int, dropout: float = 0.0, **kwargs: Any
    ):
        """Makes the layer."""
        super().__init__(**kwargs)
        self.characters, self.dimension = characters, dimension
        self.filters, self.dropout = filters, dropout
        self.seeds = keras.random.SeedGenerator()

    def build(self, characters_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors and the convolution."""
        shape = (self.characters, self.dimension)
        self.vectors = self.add_weight(shape, "uniform", name="vectors")
        shape = (3 * self.dimension, self.filters)
        self.kernel = self.add_weight(shape, "glorot_uniform", name="kernel")
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def call(self, characters: Any, training: bool = False) -> Any:
        """Convolves; see the class."""
        ids = _inside(characters, self.characters)
        if training and self.dropout:
            draw = keras.random.uniform(ops.shape(ids), seed=self.seeds)
            ids = ops.where((draw < self.dropout) & (ids > 0), 1, ids)
        real = ops.cast(ids > 0, self.compute_dtype)[..., None]
        x = ops.take(self.vectors, ids, axis=0) * real
        padded = ops.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
        three = ops.concatenate([padded[:, :, :-2], x, padded[:, :, 2:]], axis=-1)
        # Not negative, so that zeros in the place of padding never win over a character.
        y = ops.relu(ops.matmul(three, self.kernel) + self.bias) * real
        return ops.max(y, axis=2)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {
            **super().get_config(),
            "characters": self.characters,
            "dimension": self.dimension,
            "filters": self.filters,
            "dropout": self.dropout,
        }


def _inside(ids: Any, size: int) -> Any:
    """Ids as they are, or 1 where they lie outside the vocabulary."""
    ids = ops.cast(ids, "int32")
    return ops.where((ids >= 0) & (ids < size), ids, 1)


@keras.saving.register_keras_serializable("tasks.ner")
class Committee(keras.layers.Layer):
    """The CRFs of several members, which answer together.

    Each member's CRF gives the probability of each tag at each word, over all legal paths. The tags
    are the legal path on which the product of the members' mean probabilities is largest.

    Args:
      tags: their names; IOB2 says which may follow which.
      members: how many.
      outside_weight: what the probability of `O` is multiplied by before the path is chosen.

    Call arguments:
      emissions: `<float>[batch, members, time, tags]`.
      length: `<int>[batch]`.

    Returns:
      `(<int32>[batch, time] tags, <float32>[batch, time, tags] probabilities)`, both 0 beyond
      `length`.
    """

    def __init__(
        self, tags: Sequence[str], members: int = 1, outside_weight: float = 1.0, **kwargs: Any
    ):
        """Makes the layer."""
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.tags, self.members, self.outside_weight = list(tags), members, outside_weight
        transitions, start = iob2_transitions(self.tags)
        self.crfs = [
            CRF(len(self.tags), transitions, start, name=f"crf_{number}")
            for number in range(members)
        ]

    def build(self, emissions_shape: Sequence[int | None], *_: Any) -> None:
        """Builds the members' CRFs."""
        for crf in self.crfs:
            crf.build((None, None, len(self.tags)))

    def call(self, emissions: Any, length: Any) -> tuple[Any, Any]:
        """Decodes; see the class."""
        found = [crf.marginals(emissions[:, n], length) for n, crf in enumerate(self.crfs)]
        probabilities = tf.add_n(found) / self.members
        weight = np.array([self.outside_weight if tag == "O" else 1.0 for tag in self.tags])
        states = len(self.tags)
        nothing = Scores(tf.zeros((states, states)), tf.zeros(states), tf.zeros(states))
        logits = tf.math.log(tf.maximum(probabilities, 1e-9) * weight.astype(np.float32))
        tags, _ = viterbi(logits, length, nothing, self.crfs[0].constraints)
        return tags, probabilities

    def log_likelihood(self, emissions: Any, tags: Any, length: Any) -> Any:
        """Of the true tags, `<float32>[batch]`, summed over the members."""
        found = [
            crf.log_likelihood(emissions[:, n], tags, length) for n, crf in enumerate(self.crfs)
        ]
        return tf.add_n(found)

    def compute_output_spec(self, emissions: Any, length: Any) -> tuple[Any, Any]:
        """The shapes of tags and probabilities."""
        batch, _, time, tags = emissions.shape
        return (
            keras.KerasTensor((batch, time), dtype="int32"),
            keras.KerasTensor((batch, time, tags), dtype="float32"),
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {
            **super().get_config(),
            "tags": self.tags,
            "members": self.members,
            "outside_weight": self.outside_weight,
        }


def build(
    config: Config, embedding: WordEmbedding, shape: WordShape, *, tags: Sequence[str]
) -> keras.Model:
    """Builds the tagger.

    Args:
      config: the architecture.
      embedding: the word vectors, for `config.members` members.
      shape: knows the kinds of the characters.
      tags: their names, in the order of their indices.

    Returns:
      A functional model. Inputs: `words` `<int32>[batch, time]`, `characters`
      `<int32>[batch, time, word length]`, `length` `<int32>[batch]`; outputs: `tags`
      `<int32>[batch, time]`, `probabilities` `<float32>[batch, time, tags]`, both 0 beyond
      `length`, and `emissions` `<float32>[batch, members, time, tags]`, which the loss is made of.
    """
    words = keras.Input((None,), dtype="int32", name="words")
    characters = keras.Input((None, config.word_length), dtype="int32", name="characters")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, words)
    shapes = shape(characters)
    emissions = []
    for number, vectors in enumerate(embedding(words)):
        spelled = CharacterCNN(
            shape.characters,
            config.character_dimension,
            config.character_filters,
            dropout=config.character_dropout,
            name=f"characters_{number}",
        )(characters)
        x = keras.layers.Concatenate()([vectors, spelled, shapes])
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
    together = ops.stack(emissions, axis=1)
    committee = Committee(tags, config.members, config.outside_weight, name=f"{HEAD}_committee")
    found, probabilities = committee(together, length)
    return keras.Model(
        {"words": words, "characters": characters, "length": length},
        {"tags": found, "probabilities": probabilities, "emissions": together},
        name="ner",
    )


def make_losses(model: keras.Model) -> Losses:
    """The true tags' negative log-likelihood, as `common.training.fit.fit` takes it."""
    committee = model.get_layer(f"{HEAD}_committee")

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # Summed, not averaged, over the members: each learns as fast as it would alone.
        found = committee.log_likelihood(outputs["emissions"], batch["tags"], batch["length"])
        return -found, tf.ones_like(found)

    return losses
