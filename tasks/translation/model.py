"""The translation model, its loss and its search.

    text -> one form               in the graph (`sources`): accents composed, quotes unified, small
                                   letters; links, numbers and rare names as placeholders
      -> subwords                  the longest known pieces from the left; every byte is a piece
      -> embedding, encoder        bidirectional GRUs with residual connections; --cell lstm,
                                   --encoder_layers for more
      -> memory                    the encoding of each subword, and the subword itself
      -> decoder                   first layer -> attention over the steps of the encoder -> further
                                   layers, which receive the context -> scores (tied embedding);
                                   --lexical adds those of the attended subwords alone
      -> beam search               5 hypotheses, length normalisation of Wu et al. 2016
      -> text                      placeholders replaced by their words, capitals restored

The layers above the attention receive the contexts, so the previous output is not fed back, and all
steps of a layer are one fused scan in training. `--input_feeding` feeds the output back (Luong et
al. 2015) and runs step by step.

Training uses teacher forcing with smoothed labels, dropout, clipped gradients, and Adam with a
learning rate that rises over 5 % of the run and falls along half a cosine. A moving average of the
weights is scored and exported. The best epoch is the one with the best chrF of greedy translations
of the first 1,000 validation sources. `--subword_dropout` skips some matching pieces on both sides
(MaxMatch-Dropout, Hiraoka 2022), and `--word_dropout` drops the embeddings of whole subwords.
`--members N` trains several networks, and the search averages their probabilities at each step.

The search ends when no unfinished hypothesis can still beat the best finished one. Translated
sentences leave the batch. A run of up to eight subwords never begins for the third time ("no, no,
no"), unless one does so in the source. A translation ends at the maximum of the source, or at twice
the subwords of its source plus ten. With `--candidates`, the search writes only subwords of a
short-list (`shortlist`): the most likely translations of each subword of the source, the subword
itself, and the 256 most frequent subwords. The list of a sentence does not depend on the other
sentences of its batch. With `--init`, the lists of both models are merged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from common import decoding, encoder_decoder
from common.repetition import has_third_run
from common.training.fit import Losses
from tasks.translation.config import Config
from tasks.translation.shortlist import Selected, Shortlist
from tasks.translation.subwords import END, PAD, START

import keras
import numpy as np
import tensorflow as tf

# Speed of training, as a fraction of that of large matrix products.
EFFICIENCY = 0.35
MEMBER = "member_"  # prefix of the names of the networks of an ensemble


def build(config: Config, *, source_size: int, target_size: int) -> keras.Model:
    """Build the recurrent encoder-decoder with attention, or an ensemble of several.

    Args:
      config: settings of the run.
      source_size: number of source subwords.
      target_size: number of target subwords.

    Returns:
      A model with the inputs and outputs of `common.encoder_decoder.build`. That of an ensemble
      holds one such model for each member; `answers` is a list of their answers, `attention` the
      mean of their weights.

    Example:
      >>> small = Config(embedding=4, units=6, members=2)
      >>> [network.name for network in networks(build(small, source_size=9, target_size=9))]
      ['member_0', 'member_1']
    """
    if config.members == 1:
        return _build_network(config, source_size, target_size, "translation")
    members = [
        _build_network(config, source_size, target_size, f"{MEMBER}{number}")
        for number in range(config.members)
    ]
    inputs = {
        name: keras.Input(x.shape[1:], dtype=x.dtype, name=name)
        for name, x in members[0].input.items()
    }
    outputs = [member(inputs) for member in members]
    attention = keras.layers.Average(dtype="float32")([x["attention"] for x in outputs])
    answers = [x["answers"] for x in outputs]
    return keras.Model(inputs, {"answers": answers, "attention": attention}, name="translation")


def _build_network(config: Config, source_size: int, target_size: int, name: str) -> keras.Model:
    """Build one encoder-decoder."""
    return encoder_decoder.build(
        source_size=source_size,
        target_size=target_size,
        shared=config.shared_subwords,
        embedding=config.embedding,
        cell=config.cell,
        units=config.units,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        attention=config.attention,
        input_feeding=config.input_feeding,
        lexical=config.lexical,
        dropout=config.dropout,
        word_dropout=config.word_dropout,
        name=name,
    )


def networks(model: keras.Model) -> list[keras.Model]:
    """Return the members of an ensemble; a model without members is the only one.

    Args:
      model: model of `build`.
    """
    return [layer for layer in model.layers if layer.name.startswith(MEMBER)] or [model]


def make_losses(model: keras.Model, *, label_smoothing: float) -> Losses:
    """Make the smoothed cross-entropy of the next subword, in the form of `common.training.fit`.

    With logits `z`, true subword `y`, and a fraction `s` of the target probability spread over all
    subwords, the loss of a step is

        (1 - s) (lse(z) - z_y) + s (lse(z) - mean(z)) = lse(z) - z_y + s (z_y - mean(z))

    with `lse` the logarithm of the sum of exponentials. Only `lse(z)` needs all logits: `z_y` needs
    one row of the embedding and `mean(z)` its mean row. Logits are computed for valid steps only.
    Those of the ensemble members are summed: with a mean, each would learn more slowly than alone.

    Args:
      model: model of `build`.
      label_smoothing: the fraction `s`.

    Returns:
      A function of the model's outputs and a batch. It returns the sum of the losses of each row
      and their number, both `<float32>[batch]`.
    """
    embeddings = [encoder_decoder.token_embedding(network) for network in networks(model)]

    def losses(
        outputs: Mapping[str, Any], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        length = batch["target_length"]
        valid = tf.sequence_mask(length, tf.shape(batch["labels"])[1])
        labels = tf.boolean_mask(batch["labels"], valid)
        answers = tf.nest.flatten(outputs["answers"])
        values = tf.add_n(
            [
                smoothed(embedding, tf.boolean_mask(features, valid), labels)
                for embedding, features in zip(embeddings, answers, strict=True)
            ]
        )
        rows = tf.repeat(tf.range(tf.shape(length)[0]), length)
        return tf.math.segment_sum(values, rows), tf.cast(length, tf.float32)

    def smoothed(
        embedding: keras.layers.ReversibleEmbedding, features: tf.Tensor, labels: tf.Tensor
    ) -> tf.Tensor:
        logits = tf.cast(embedding(features, reverse=True), tf.float32)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if label_smoothing:
            features = tf.cast(features, tf.float32)
            table = tf.convert_to_tensor(embedding.embeddings)
            above_mean = tf.gather(table, labels) - tf.reduce_mean(table, axis=0)
            values += label_smoothing * tf.reduce_sum(features * above_mean, axis=-1)
        return values

    return losses


def training_seconds(model: keras.Model, read: int, written: int) -> float:
    """Estimate the time of one epoch on the CPUs of this machine.

    Args:
      model: model of `build`.
      read: subwords of all sources.
      written: subwords of all targets.
    """
    operations = 0.0
    for network in networks(model):
        encoder, decoder = (network.get_layer(x).count_params() for x in ("encoder", "decoder"))
        output = encoder_decoder.token_embedding(network).count_params()
        # Two operations for each weight, forward; twice as many backward.
        operations += 6.0 * (read * encoder + written * (decoder + output))
    square = tf.random.normal([1024, 1024])
    tf.matmul(square, square)
    start = time.perf_counter()
    for _ in range(8):
        product = tf.matmul(square, square)
    float(product[0, 0])  # waits for the result
    speed = 8 * 2.0 * 1024**3 / (time.perf_counter() - start)
    return operations / (EFFICIENCY * speed)


def limit_length(length: tf.Tensor, max_length: int) -> tf.Tensor:
    """Return the maximum number of subwords of the translation of each source.

    Args:
      length: `<int32>[batch]`, of the sources, with their end symbol.
      max_length: maximum of all translations.
    """
    return tf.minimum(2 * length + 10, max_length)


def translate(
    model: keras.Model,
    ids: tf.Tensor,
    length: tf.Tensor,
    *,
    max_length: int,
    beam: int = 1,
    best: int = 1,
    alpha: float = 0.0,
    shortlist: Shortlist | None = None,
) -> decoding.Decoded:
    """Search for the most probable translations, none of which repeats itself.

    A run of subwords begins for the third time only in translations of sources that have one.

    Args:
      model: model of `build`.
      ids: `<int32>[batch, time]`, sources with their end symbol.
      length: `<int32>[batch]`.
      max_length: maximum number of subwords of a translation; see also `limit_length`.
      beam: number of hypotheses per source; 1 is greedy search.
      best: number of translations to find, up to `beam`.
      alpha: exponent of the length normalisation of Wu et al. 2016.
      shortlist: the subwords that translations may contain; None: all.

    Returns:
      Translations without the end symbol, `[batch, beam, ...]`, best first.
    """
    encoded = [encoder_decoder.encode(network, ids, length) for network in networks(model)]
    selected = None if shortlist is None else shortlist.select(ids, length)
    step, context = _make_step(model, encoded, selected, beam)
    decoded = decoding.beam_search(
        step,
        [source.state for source in encoded],
        tf.fill(tf.shape(length), START),
        end=END,
        max_length=max_length,
        beam=beam,
        best=best,
        limit=limit_length(length, max_length),
        alpha=alpha if beam > 1 else 0.0,
        may_repeat=has_third_run(ids, length),
        context=context,
    )
    if selected is not None:
        decoded = decoded._replace(tokens=tf.gather(selected.tokens, decoded.tokens))
    if beam > 1:
        return decoded
    return decoded._replace(
        score=decoded.score / decoding.length_penalty(decoded.length + 1, alpha)
    )


def _make_step(
    model: keras.Model,
    encoded: Sequence[encoder_decoder.Encoded],
    selected: Selected | None,
    beam: int,
) -> tuple[Callable[..., tuple[Any, tf.Tensor]], Any]:
    """Return the step of the search and its context, in a short-list if there is one.

    Each member has a state and an encoded source. Its probabilities are those in the short-list of
    the row, as they are without other members.
    """
    # The special subwords are the first in every list, so PAD, START and END keep their numbers.
    tokens = None if selected is None else selected.tokens
    members = [
        encoder_decoder.make_step(network, source, never=(PAD, START), tokens=tokens)
        for network, source in zip(networks(model), encoded, strict=True)
    ]
    # A cast, since AutoGraph refuses annotated names. The type `Step` has no third argument.
    steps = cast("list[Callable[..., Any]]", members)

    def step(states: Any, token: tf.Tensor, context: Any) -> tuple[Any, tf.Tensor]:
        sources, penalty = context
        results = [
            step_one(state, token, source)
            for step_one, state, source in zip(steps, states, sources, strict=True)
        ]
        scores = [x if selected is None else penalize(x, penalty) for _, x in results]
        return [state for state, _ in results], mean_scores(scores)

    def penalize(scores: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
        by_row = tf.reshape(scores, [-1, beam, tf.shape(penalty)[1]]) + penalty[:, None]
        return tf.reshape(by_row, tf.shape(scores))

    sources = [source._replace(state={}) for source in encoded]
    return step, (sources, () if selected is None else selected.penalty)


def mean_scores(scores: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the logarithm of the mean probabilities of the members, whose scores these are.

    Args:
      scores: `<float32>[rows, symbols]` of each member, not necessarily normalized. Those of a
        single member are returned as they are.

    Example:
      >>> scores = [tf.math.log([[3.0, 1.0]]), tf.math.log([[1.0, 1.0]])]
      >>> tf.exp(mean_scores(scores)).numpy()
      array([[0.625, 0.375]], dtype=float32)
    """
    if len(scores) == 1:
        return scores[0]
    normalized = [tf.nn.log_softmax(x) for x in scores]
    return tf.reduce_logsumexp(normalized, axis=0) - float(np.log(len(scores)))
