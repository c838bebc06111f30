"""New music from a trained model, frame by frame, in one graph loop.

A frame is drawn note by note from below: which key comes next, or that the frame is complete. With
`p_k` the model's probability of key k given those chosen so far,

    P(next is k) = p_k * product of (1 - p_j) over the keys j between the last chosen and k

which draws from the same distribution as key by key would, in as many turns as there are notes, and
lets temperature and nucleus act on the choice of a note rather than on 88 decisions of yes or no.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from common.decoding import IMPOSSIBLE, draw, filter_log_probabilities, loop, uniform
from tasks.music.model import KEYS, LAGS, Keys, Past, follow_repeats, identities, mean_log_odds

import keras
import tensorflow as tf


class Member(NamedTuple):
    """One network of a model: what reads frames, and what gives keys."""

    encoder: keras.layers.Layer
    keys: Keys


class Parts(NamedTuple):
    """The layers of a model of `tasks.music.model.build`, to be walked step by step."""

    outlook: keras.layers.Layer
    members: list[Member]


def parts(model: keras.Model) -> Parts:
    """Takes a model apart."""
    count = sum(layer.name.startswith("keys_") for layer in model.layers)
    members = [
        Member(model.get_layer(f"encoder_{n}"), model.get_layer(f"keys_{n}")) for n in range(count)
    ]
    return Parts(model.get_layer("outlook"), members)


# --- a frame --------------------------------------------------------------------------------------


class Frame:
    """What the members say of a frame to come, asked again as its keys are chosen.

    Args:
      members: the networks.
      states: of each, `<float>[rows, units]`.
      past: of the same rows.
    """

    def __init__(self, members: Sequence[Member], states: Sequence[tf.Tensor], past: Past):
        """Prepares what does not depend on the keys chosen."""
        self.members, self.past_rows = members, past
        self.prepared = [
            keys.past(state, past) for (_, keys), state in zip(members, states, strict=True)
        ]

    @property
    def is_joint(self) -> bool:
        """Whether an answer depends on the keys chosen."""
        return self.members[0].keys.joint

    def ask(self, notes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The logarithms of each key's probability to sound, and not to, given those below.

        Args:
          notes: `<float>[rows, 88]`, the keys chosen.

        Returns:
          `<float>[rows, 88]` twice.
        """
        logits = [
            keys.logits(prepared, keys.given_keys(notes, self.past_rows) if keys.joint else None)
            for (_, keys), prepared in zip(self.members, self.prepared, strict=True)
        ]
        return mean_log_odds(tf.stack(logits, axis=1))

    def nll(self, notes: tf.Tensor) -> tf.Tensor:
        """Negative log-likelihood of true frames `<float>[rows, 88]`, in nats, `<float>[rows]`."""
        on, off = self.ask(notes)
        return -tf.reduce_sum(tf.where(notes > 0.5, on, off), axis=-1)

    def likely(self) -> tf.Tensor:
        """The probability of each key, given that those below sound which have 0.5 or more.

        Returns:
          `<float>[rows, 88]`.
        """
        rows = tf.shape(self.past_rows.runs)[0]
        nothing = tf.zeros([rows, KEYS])
        on = self.ask(nothing)[0]
        if not self.is_joint:
            return tf.exp(on)
        places = tf.range(KEYS)

        def turn(notes: tf.Tensor, on: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, ...]:
            following = tf.where((on >= HALF) & (places > last[:, None]), places, KEYS)
            last = tf.reduce_min(following, axis=-1)
            notes += tf.one_hot(last, KEYS)  # KEYS itself gives zeros: the row is complete
            return notes, self.ask(notes)[0], last

        start = (nothing, on, tf.fill([rows], -1))
        _, on, _ = tf.while_loop(lambda _, __, last: tf.reduce_any(last < KEYS), turn, start)
        return tf.exp(on)

    def choose(
        self,
        draws: tf.Tensor,
        wanted: tf.Tensor,
        temperature: tf.Tensor,
        top_p: tf.Tensor,
    ) -> tf.Tensor:
        """Draws frames.

        Args:
          draws: `<float>[rows, 89]` in [0, 1), a number for each note and for the end.
          wanted: `<bool>[rows]`; another row stays empty.
          temperature: `<float>[rows]`; see `filter_log_probabilities`.
          top_p: `<float>[rows]`; see there.

        Returns:
          `<float>[rows, 88]`.
        """
        places = tf.range(KEYS)

        def turn(
            count: tf.Tensor, notes: tf.Tensor, last: tf.Tensor, active: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            on, off = self.ask(notes)
            above = places > last[:, None]
            off = tf.where(above, off, 0.0)
            key = tf.where(above, on + tf.cumsum(off, axis=-1, exclusive=True), IMPOSSIBLE)
            complete = tf.reduce_sum(off, axis=-1, keepdims=True)
            scores = filter_log_probabilities(
                tf.concat([key, complete], axis=-1), temperature=temperature, top_p=top_p
            )
            choice = draw(scores, tf.gather(draws, count, axis=1))
            active &= choice < KEYS
            chosen = tf.where(active, choice, KEYS)  # KEYS itself gives zeros
            return count + 1, notes + tf.one_hot(chosen, KEYS), choice, active

        rows = tf.shape(draws)[0]
        start = (tf.constant(0), tf.zeros([rows, KEYS]), tf.fill([rows], -1), wanted)
        go_on = lambda _, __, ___, active: tf.reduce_any(active)  # noqa: E731
        return tf.while_loop(go_on, turn, start)[1]


HALF = -0.6931472  # the logarithm of 0.5, in float32 a hair below it


# --- many frames ----------------------------------------------------------------------------------


class _State(NamedTuple):
    """What is carried from step to step."""

    encoders: list[list[tf.Tensor]]  # the states of each member's recurrent layers
    frames: tf.Tensor  # <float>[batch, LAGS[-1] + steps, 88], those before the first being empty
    known: tf.Tensor  # <int64>[2, batch, steps], their identities
    runs: tf.Tensor  # <int32>[2, batch, steps], see `follow_repeats`


def generate(
    model: Parts,
    *,
    prime: tf.Tensor,
    prime_length: tf.Tensor,
    length: tf.Tensor,
    temperature: tf.Tensor,
    top_p: tf.Tensor,
    seed: tf.Tensor,
    steps: int | tf.Tensor,
) -> tf.Tensor:
    """Goes on from the first frames of music, or from nothing.

    What a row answers depends on that row alone.

    Args:
      model: the layers.
      prime: `<float>[batch, time >= 1, 88]`, the given frames.
      prime_length: `<int32>[batch]`, how many; those behind are not looked at.
      length: `<int32>[batch]`, of the whole; frames beyond are empty.
      temperature: `<float>[batch]`.
      top_p: `<float>[batch]`.
      seed: `<int32>[batch, 2]`.
      steps: how many frames to give, at least 1; a Python int gives static shapes, which XLA
        demands.

    Returns:
      `<float>[batch, steps, 88]`, the prime first.
    """
    batch = tf.shape(prime)[0]
    time = tf.shape(prime)[1]
    before = LAGS[-1]

    def step(state: _State, previous: tf.Tensor, place: tf.Tensor) -> tuple[_State, tf.Tensor]:
        # At the first step the empty frame is put where it stands already, before the first.
        here = tf.range(tf.shape(state.frames)[1]) == before + place - 1
        frames = tf.where(here[:, None], previous[:, None], state.frames)
        known = tf.where(here[before:], identities(previous)[:, :, None], state.known)
        runs, copied, found = follow_repeats(state.runs, known, tf.maximum(place - 1, 0))
        planes = [frames[:, before + place - lag] for lag in LAGS]
        for kind in range(2):
            seen = tf.gather(frames, before + copied[kind], axis=1, batch_dims=1)
            planes.append(tf.where(found[kind][:, None] > 0, seen, 0.0))
        past = Past(tf.stack(planes, axis=-1), tf.transpose(found), tf.fill([batch], place))
        seen = model.outlook(*past)
        outputs, states = zip(
            *(
                advance(m.encoder, seen, s)
                for m, s in zip(model.members, state.encoders, strict=True)
            ),
            strict=True,
        )
        frame = Frame(model.members, outputs, past)
        given = place < prime_length
        drawn = frame.choose(
            uniform(seed, place, KEYS + 1), ~given & (place < length), temperature, top_p
        )
        kept = tf.cast(prime[:, tf.minimum(place, time - 1)] > 0.5, tf.float32)
        following = tf.where(given[:, None], kept, drawn)
        return _State(list(states), frames, known, runs), following

    start = _State(
        [initial_states(member.encoder, batch) for member in model.members],
        tf.zeros([batch, before + steps, KEYS]),
        tf.zeros([2, batch, steps], tf.int64),
        tf.zeros([2, batch, steps], tf.int32),
    )
    _, notes = loop(step, start, tf.zeros([batch, KEYS]), steps=steps)
    return notes


def initial_states(encoder: keras.layers.Layer, batch: tf.Tensor) -> list[tf.Tensor]:
    """The zeros that a recurrent network starts from."""
    return [
        tf.zeros([batch, size]) for layer in encoder.layers for size in as_list(layer.state_size)
    ]


def advance(
    encoder: keras.layers.Layer, features: tf.Tensor, states: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """One step of a `common.rnn.DeepRNN`, cell by cell: no loop is needed for one step.

    Args:
      encoder: the network, without residual connections.
      features: `<float>[batch, features]`.
      states: of all layers, each `<float>[batch, units]`.

    Returns:
      The output `<float>[batch, units]` and the new states.
    """
    output, following = features, []
    for layer in encoder.layers:
        size = len(as_list(layer.state_size))
        own = list(states[len(following) : len(following) + size])
        output, new = layer.cell(output, own)
        following += [tf.cast(state, tf.float32) for state in as_list(new)]
    return output, following


def as_list(value: Any) -> list[Any]:
    """What Keras gives alone or as a list, as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]
