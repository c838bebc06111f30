"""The classifier: embedding, bidirectional recurrent layers, pooling over time, softmax.

    text -> tokens                 in the graph: one tokeniser for training and serving
      -> words                     an unknown word is read as its known parts
      -> word vectors              pretrained and fixed (GloVe 6B, 50-d), a rating (VADER's lexicon)
                                   + learned for each training word
                                   + learned for the word's subwords of 3 to 5 letters
      -> bidirectional LSTM        140 units each way; --layers for more
      -> pooling over valid steps  mean and max, concatenated
      -> softmax                   the mean over ensemble members (3; 1 with --data)

It is trained with cross-entropy on smoothed labels, Adam with a learning rate that falls along half
a cosine, word and feature dropout, and a moving average of the weights, which is validated and
exported. The targets of `rated_texts` are spread over neighbouring stars where the mean rating is
near a bound. The learned vector of a rare word is dropped most of the time (`--rare_word_dropout`),
which prevents memorising it. With `--clusters explosion`, as in the preset of `sst5`, the vector of
the cluster of a word is a further feature.

The vocabulary has the most frequent words of GloVe (`--frequent_words`), the rated words and those
of the training texts. Vectors are stored in 4 bits, so exports are small.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.attention import MaskedPooling
from common.rnn import length_mask, stack
from common.word_clusters import LAYER as CLUSTERS
from common.word_clusters import ClusterFeatures
from common.word_embedding import WordEmbedding
from tasks.sentiment.config import Config

import keras
import tensorflow as tf
from keras import ops

EMBEDDING = "embedding"  # name of the layer of word vectors
HEAD = "head"  # prefix of the layers that `--init` replaces if the classes differ


def build(
    config: Config,
    embedding: WordEmbedding,
    clusters: ClusterFeatures | None = None,
    *,
    classes: int,
) -> keras.Model:
    """Build the classifier.

    Args:
      config: the architecture.
      embedding: the word vectors, which all ensemble members share.
      clusters: the cluster features of a word, also shared; None: no such features.
      classes: number of classes, ordered from worst to best.

    Returns:
      A functional model. Inputs: `ids` `<int32>[batch, time]`, `length` `<int32>[batch]`. Outputs,
      all `<float32>`: `probabilities` `[batch, classes]`, the mean over the ensemble members;
      `members` `[batch, members, classes]`, the probabilities of each member; `attention`
      `[batch, time]`, the weight of each word in the pooled features.

    Example:
      >>> small = build(Config(units=4), WordEmbedding(9, 9, 3), classes=5)
      >>> outputs = small({"ids": ops.array([[2, 3, 0]]), "length": ops.array([2])})
      >>> {name: tuple(value.shape) for name, value in outputs.items()}
      {'probabilities': (1, 5), 'members': (1, 1, 5), 'attention': (1, 3)}
    """
    ids = keras.Input((None,), dtype="int32", name="ids")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, ids)
    members, weights = [], []
    (vectors,) = embedding(ids)
    if clusters is not None:
        vectors = keras.layers.Concatenate()([vectors, clusters(ids)])
    for number in range(config.members):
        x = keras.layers.SpatialDropout1D(config.embedding_dropout)(vectors)
        x = stack(
            config.cell,
            config.units,
            config.layers,
            bidirectional=True,
            dropout=config.dropout,
            name=f"encoder_{number}",
        )(x, mask=mask)
        pooled = []
        for mode in config.pooling:
            vector, weight = MaskedPooling(mode, name=f"pool_{mode}_{number}")(x, mask=mask)
            pooled.append(vector)
            weights.append(weight)
        features = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate()(pooled)
        features = keras.layers.Dropout(config.head_dropout)(features)
        logits = keras.layers.Dense(classes, dtype="float32", name=f"{HEAD}_{number}")(features)
        members.append(keras.layers.Softmax(dtype="float32")(logits))
    stacked = ops.stack(members, axis=1)
    return keras.Model(
        {"ids": ids, "length": length},
        {
            "probabilities": ops.mean(stacked, axis=1),
            "members": stacked,
            "attention": ops.mean(ops.stack(weights), axis=0),
        },
        name="sentiment",
    )


def pack(model: keras.Model, config: Config) -> keras.Model:
    """Return a copy of a trained model whose word vectors are stored in 4 bits, for an export.

    Args:
      model: the model, made by `build`.
      config: its architecture.
    """
    classes = model.output["probabilities"].shape[-1]
    clusters = model.get_layer(CLUSTERS) if config.clusters != "none" else None
    packed = build(config, model.get_layer(EMBEDDING).pack(), clusters, classes=classes)
    for layer in packed.layers:
        if layer.weights and layer.name not in (EMBEDDING, CLUSTERS):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return packed


def losses(
    outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the losses and weights of a batch, for `common.training.fit.fit`.

    The loss of an example is the cross-entropy against its `target`, summed over the ensemble
    members. With a sum instead of a mean, each member learns as fast as it would alone.
    """
    members = tf.clip_by_value(outputs["members"], 1e-7, 1.0)
    values = -tf.reduce_sum(batch["target"][:, None] * tf.math.log(members), axis=(1, 2))
    return values * batch["weight"], batch["weight"]
