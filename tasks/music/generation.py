"""Generation of music from a trained model, frame by frame, in one graph loop.

A frame is sampled note by note, from the lowest key to the highest. Each choice is either the next
key that sounds or the end of the frame. With `p_k` the probability of key k given the keys chosen
so far,

    P(next key is k) = p_k * product of (1 - p_j) over the keys j between the last chosen key and k

This is the same distribution as 88 separate decisions, but takes only as many iterations as the
frame has notes, and temperature and nucleus sampling apply to the choice of a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from common.decoding import loop
from common.sampling import IMPOSSIBLE, draw, filter_log_probabilities, uniform
from tasks.music.features import (
    LAGS,
    Past,
    extend_repeats,
    fingerprints,
    sounding_keys,
    struck_keys,
)
from tasks.music.habits import MEMORY, NO_HABITS, Habits
from tasks.music.midi import KEYS
from tasks.music.model import Keys, mean_log_odds
from tasks.music.rules import Rules, pitch_classes
from tasks.music.strikes import Strikes, held_and_struck

import keras
import tensorflow as tf

LOG_HALF = -0.6931472  # log(0.5); in float32 slightly below it


class Member(NamedTuple):
    """One ensemble member: the recurrent network over frames and the networks over keys."""

    encoder: keras.layers.Layer
    keys: Keys
    strikes: Strikes


class Parts(NamedTuple):
    """The layers of a model that generation runs step by step, and the habits that it keeps."""

    outlook: keras.layers.Layer
    members: list[Member]
    habits: Habits = NO_HABITS


def parts(model: keras.Model, habits: Habits = NO_HABITS) -> Parts:
    """Return the layers of a model of `tasks.music.model.build`.

    Args:
      model: the model.
      habits: what samples keep; by default they follow the distribution of the model alone.
    """
    count = sum(layer.name.startswith("keys_") for layer in model.layers)
    members = [
        Member(*(model.get_layer(f"{name}_{n}") for name in ("encoder", "keys", "strikes")))
        for n in range(count)
    ]
    return Parts(model.get_layer("outlook"), members, habits)


# --- one frame ------------------------------------------------------------------------------------


class Frame:
    """The distribution of the next frame of each row.

    Args:
      members: the ensemble members.
      states: for each member, the output of its recurrent network `<float>[rows, units]`.
      past: the features of the same rows.
    """

    def __init__(self, members: Sequence[Member], states: Sequence[tf.Tensor], past: Past):
        self.members, self.states, self.past = members, states, past
        self.prepared = [
            member.keys.prepare(state, past) for member, state in zip(members, states, strict=True)
        ]

    @property
    def is_joint(self) -> bool:
        """True if the probability of a key depends on the lower keys of the frame."""
        return self.members[0].keys.joint

    def log_probabilities(self, notes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the log-probabilities of each key, given the lower keys.

        Args:
          notes: `<float>[rows, 88]`, the keys of the frame; each key depends on those below it.

        Returns:
          The log-probabilities that a key sounds and that it does not, each `<float>[rows, 88]`.
        """
        logits = [
            keys.logits(prepared, keys.lower_keys(notes, self.past) if keys.joint else None)
            for (_, keys, _), prepared in zip(self.members, self.prepared, strict=True)
        ]
        return mean_log_odds(tf.stack(logits, axis=1))

    def nll(self, notes: tf.Tensor) -> tf.Tensor:
        """Return the negative log-likelihood, in nats, of true frames.

        Args:
          notes: `<float>[rows, 88]`; a key sounds where a value exceeds 0.5.

        Returns:
          `<float>[rows]`.
        """
        on, off = self.log_probabilities(sounding_keys(notes))
        return -tf.reduce_sum(tf.where(notes > 0.5, on, off), axis=-1)

    def greedy_probabilities(self) -> tf.Tensor:
        """Return the probability of each key if the lower keys are chosen greedily.

        A lower key is chosen if its own probability is at least 0.5.

        Returns:
          `<float>[rows, 88]`.
        """
        rows = tf.shape(self.past.runs)[0]
        empty = tf.zeros([rows, KEYS])
        on = self.log_probabilities(empty)[0]
        if not self.is_joint:
            return tf.exp(on)
        numbers = tf.range(KEYS)

        def body(notes: tf.Tensor, on: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, ...]:
            candidates = tf.where((on >= LOG_HALF) & (numbers > last[:, None]), numbers, KEYS)
            last = tf.reduce_min(candidates, axis=-1)
            notes += tf.one_hot(last, KEYS)  # all zeros for `KEYS`: the frame is complete
            return notes, self.log_probabilities(notes)[0], last

        start = (empty, on, tf.fill([rows], -1))
        _, on, _ = tf.while_loop(lambda _, __, last: tf.reduce_any(last < KEYS), body, start)
        return tf.exp(on)

    def sample(
        self,
        random: tf.Tensor,
        wanted: tf.Tensor,
        temperature: tf.Tensor,
        top_p: tf.Tensor,
        rules: Rules | None = None,
    ) -> tf.Tensor:
        """Sample the keys of frames.

        Args:
          random: `<float>[rows, 89]` in [0, 1), one random number per note and one for the end.
          wanted: `<bool>[rows]`; the frames of other rows stay empty.
          temperature: `<float>[rows]`; see `common.sampling.filter_log_probabilities`.
          top_p: `<float>[rows]`; see there.
          rules: change the distribution.

        Returns:
          `<float>[rows, 88]`.
        """
        numbers = tf.range(KEYS)

        def body(
            count: tf.Tensor, notes: tf.Tensor, last: tf.Tensor, active: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            on, off = self.log_probabilities(notes)
            above = numbers > last[:, None]
            off = tf.where(above, off, 0.0)
            key = tf.where(above, on + tf.cumsum(off, axis=-1, exclusive=True), IMPOSSIBLE)
            complete = tf.reduce_sum(off, axis=-1, keepdims=True)
            scores = tf.concat([key, complete], axis=-1)
            if rules is not None:
                scores += rules.log_factors(notes, last)
            scores = filter_log_probabilities(scores, temperature=temperature, top_p=top_p)
            choice = draw(scores, tf.gather(random, count, axis=1))
            active &= choice < KEYS
            chosen = tf.where(active, choice, KEYS)  # one-hot: all zeros for `KEYS`
            return count + 1, notes + tf.one_hot(chosen, KEYS), choice, active

        rows = tf.shape(random)[0]
        start = (tf.constant(0), tf.zeros([rows, KEYS]), tf.fill([rows], -1), wanted)
        return tf.while_loop(lambda _, __, ___, active: tf.reduce_any(active), body, start)[1]

    def _prepare_strikes(self, notes: tf.Tensor) -> list[tf.Tensor]:
        """Return what `Strikes.prepare` returns for each member."""
        return [
            strikes.prepare(state, self.past, notes)
            for (_, _, strikes), state in zip(self.members, self.states, strict=True)
        ]

    def _strike_log_odds(
        self, prepared: Sequence[tf.Tensor], held: tf.Tensor, struck: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the log-probabilities that each held key is struck again, and that it is not."""
        logits = [
            member.strikes.logits(value, held, struck)
            for member, value in zip(self.members, prepared, strict=True)
        ]
        return mean_log_odds(tf.stack(logits, axis=1))

    def strike_nll(self, notes: tf.Tensor) -> tf.Tensor:
        """Return the negative log-likelihood of strikes, in nats, `<float>[rows]`.

        Args:
          notes: `<float>[rows, 88]`, true frames; see `tasks.music.midi`.
        """
        held, struck = held_and_struck(notes, self.past.planes[..., 0])
        prepared = self._prepare_strikes(sounding_keys(notes))
        on, off = self._strike_log_odds(prepared, held, struck)
        return -tf.reduce_sum(tf.where(struck > 0.5, on, off) * held, axis=-1)

    def sample_strikes(
        self, notes: tf.Tensor, random: tf.Tensor, temperature: tf.Tensor, forced: tf.Tensor
    ) -> tf.Tensor:
        """Sample which held keys are struck again.

        Args:
          notes: `<float>[rows, 88]`, 1 where a key sounds.
          random: `<float>[rows, 88]` in [0, 1).
          temperature: `<float>[rows]`; see `sample`.
          forced: `<bool>[rows, 88]`, keys that are not held on.

        Returns:
          `<float>[rows, 88]`, 1 where a key is struck again.
        """
        held, _ = held_and_struck(notes, self.past.planes[..., 0])
        prepared = self._prepare_strikes(notes)
        numbers = tf.range(KEYS)
        divisor = tf.maximum(temperature, 1e-6)[:, None]

        def body(struck: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            on, off = self._strike_log_odds(prepared, held, struck)
            chosen = random < tf.sigmoid((on - off) / divisor)
            chosen = tf.where(temperature[:, None] > 0.0, chosen, on > off) | forced
            candidates = tf.where((held > 0.5) & (numbers > last[:, None]), numbers, KEYS)
            last = tf.reduce_min(candidates, axis=-1)
            return struck + tf.one_hot(last, KEYS) * tf.cast(chosen, tf.float32), last

        start = (tf.zeros_like(notes), tf.fill([tf.shape(notes)[0]], -1))
        return tf.while_loop(lambda _, last: tf.reduce_any(last < KEYS), body, start)[0]


# --- a sequence of frames -------------------------------------------------------------------------


class _State(NamedTuple):
    """The loop variables of `generate`."""

    encoders: list[list[tf.Tensor]]  # the states of the recurrent layers of each member
    frames: tf.Tensor  # <float>[batch, LAGS[-1] + steps, 88]; LAGS[-1] empty frames come first
    prints: tf.Tensor  # <int64>[2, batch, steps], see `fingerprints`
    runs: tf.Tensor  # <int32>[2, batch, steps], see `extend_repeats`
    age: tf.Tensor  # <int32>[batch, 88], steps since each sounding key was struck; 0: silent
    sounding: tf.Tensor  # <int32>[batch, 88], steps for which each key has sounded
    still: tf.Tensor  # <int32>[batch], steps for which the sounding keys have not changed
    classes: tf.Tensor  # <float>[batch, 12], the weight of each pitch class so far


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
    """Continue the first frames of a piece, or compose from nothing.

    The result of a row does not depend on the other rows.

    Args:
      model: the layers of the model.
      prime: `<float>[batch, time >= 1, 88]`, the first frames; see `tasks.music.midi`.
      prime_length: `<int32>[batch]`, the number of frames of the prime; later ones are ignored.
      length: `<int32>[batch]`, the number of frames in total, including the prime.
      temperature: `<float>[batch]`.
      top_p: `<float>[batch]`.
      seed: `<int32>[batch, 2]`.
      steps: number of frames of the result, at least 1. A Python int results in static shapes, as
        XLA requires.

    Returns:
      `<float>[batch, steps, 88]`, frames of 0, 1 and 2, beginning with the prime; those beyond
      `length` are empty.
    """
    batch = tf.shape(prime)[0]
    time = tf.shape(prime)[1]
    has_habits = model.habits != NO_HABITS
    before = LAGS[-1]

    def step(state: _State, previous: tf.Tensor, place: tf.Tensor) -> tuple[_State, tf.Tensor]:
        # At step 0, `previous` is an empty frame and is written over an empty one.
        newest = tf.range(tf.shape(state.frames)[1]) == before + place - 1
        frames = tf.where(newest[:, None], previous[:, None], state.frames)
        prints = tf.where(newest[before:], fingerprints(previous)[:, :, None], state.prints)
        runs, copied, repeated = extend_repeats(state.runs, prints, tf.maximum(place - 1, 0))
        past = _past_of(frames, copied, repeated, place)
        features = model.outlook(*past)
        outputs, states = zip(
            *(
                advance(member.encoder, features, states)
                for member, states in zip(model.members, state.encoders, strict=True)
            ),
            strict=True,
        )
        frame = Frame(model.members, outputs, past)
        age, sounding, still = _durations(state, frames, place)
        classes = MEMORY * state.classes + pitch_classes(past.planes[..., 0])
        given = place < prime_length
        last = past.planes[..., 0]
        durations = {"sounding": sounding, "still": still, "classes": classes}
        rules = Rules(model.habits, last, **durations) if has_habits else None
        random, wanted = uniform(seed, place, KEYS + 1), ~given & (place < length)
        sampled = frame.sample(random, wanted, temperature, top_p, rules)
        # Other random numbers than those of any frame.
        random = uniform(seed, -1 - place, KEYS)
        too_long = age >= (model.habits.longest_note or tf.int32.max)
        sampled += frame.sample_strikes(sampled, random, temperature, too_long)
        prime_frame = levels(prime[:, tf.minimum(place, time - 1)])
        following = tf.where(given[:, None], prime_frame, sampled)
        durations["age"] = age
        return _State(list(states), frames, prints, runs, **durations), following

    start = _State(
        [initial_states(member.encoder, batch) for member in model.members],
        tf.zeros([batch, before + steps, KEYS]),
        tf.zeros([2, batch, steps], tf.int64),
        tf.zeros([2, batch, steps], tf.int32),
        age=tf.zeros([batch, KEYS], tf.int32),
        sounding=tf.zeros([batch, KEYS], tf.int32),
        still=tf.zeros([batch], tf.int32),
        classes=tf.zeros([batch, 12]),
    )
    _, notes = loop(step, start, tf.zeros([batch, KEYS]), steps=steps)
    return notes


def levels(notes: tf.Tensor) -> tf.Tensor:
    """Return frames of 0.0, 1.0 and 2.0 for any numbers; see `tasks.music.midi`."""
    return sounding_keys(notes) + tf.cast(notes > 1.5, tf.float32)


def _durations(state: _State, frames: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return `age`, `sounding` and `still` up to frame `place - 1`; see `_State`."""
    newest, earlier = (frames[:, LAGS[-1] + place - lag] for lag in (1, 2))
    struck = struck_keys(newest, earlier) > 0.5
    age = tf.where(struck, 1, tf.where(newest > 0.5, state.age + 1, 0))
    same = tf.reduce_all((newest > 0.5) == (earlier > 0.5), axis=-1)
    sounding = tf.where(newest > 0.5, state.sounding + 1, 0)
    return age, sounding, tf.where(same, state.still + 1, 1)


def _past_of(frames: tf.Tensor, copied: tf.Tensor, runs: tf.Tensor, place: tf.Tensor) -> Past:
    """Return the features of frame `place`; the same as those of `tasks.music.features.look_back`.

    Args:
      frames: see `_State`.
      copied: `<int32>[2, batch]`, the indices of the frames after the longest repeats.
      runs: `<int32>[2, batch]`, the lengths of these repeats.
      place: `<int32>[]`.
    """
    before = LAGS[-1]
    planes = [sounding_keys(frames[:, before + place - lag]) for lag in LAGS]
    strikes = [struck_keys(*(frames[:, before + place - lag] for lag in (1, 2)))]
    for kind in range(2):
        copy, earlier = (
            tf.gather(frames, before + copied[kind] - lag, axis=1, batch_dims=1) for lag in (0, 1)
        )
        repeated = runs[kind][:, None] > 0
        planes.append(tf.where(repeated, sounding_keys(copy), 0.0))
        strikes.append(tf.where(repeated, struck_keys(copy, earlier), 0.0))
    step = tf.fill(tf.shape(runs)[1:], place)
    return Past(tf.stack(planes, axis=-1), tf.transpose(runs), step, tf.stack(strikes, axis=-1))


def initial_states(encoder: keras.layers.Layer, batch: tf.Tensor) -> list[tf.Tensor]:
    """Return the initial states of a `common.rnn.DeepRNN`, which are zeros."""
    return [
        tf.zeros([batch, size]) for layer in encoder.layers for size in _as_list(layer.state_size)
    ]


def advance(
    encoder: keras.layers.Layer, features: tf.Tensor, states: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Run one step of a `common.rnn.DeepRNN`, calling its cells directly.

    Args:
      encoder: the network, without residual connections.
      features: `<float>[batch, features]`.
      states: the states of all layers, each `<float>[batch, units]`.

    Returns:
      The output `<float>[batch, units]` and the new states.
    """
    output = features
    following: list[tf.Tensor] = []
    for layer in encoder.layers:
        size = len(_as_list(layer.state_size))
        previous = list(states[len(following) : len(following) + size])
        output, new = layer.cell(output, previous)
        following += [tf.cast(state, tf.float32) for state in _as_list(new)]
    return output, following


def _as_list(value: Any) -> list[Any]:
    """Wrap a single value in a list; Keras returns one state without a list."""
    return list(value) if isinstance(value, list | tuple) else [value]
