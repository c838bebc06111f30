"""The exported signatures: the first notes of a piece -> its continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.rnn import length_mask
from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, same
from tasks.music.features import Past, look_back, sounding_keys, struck_keys
from tasks.music.generation import Frame, Parts, generate, levels, parts
from tasks.music.habits import NO_HABITS, Habits
from tasks.music.midi import KEYS

import keras
import numpy as np
import tensorflow as tf

LONGEST = 4096  # maximum number of frames of a row, including the prime
STEPS = 768  # maximum number of frames that a request adds to a row
MOST = 8_192  # frames of a request: its rows times the longest of them
HOTTEST = 1000.0  # maximum temperature
LENGTHS = (64, 512, LONGEST)  # numbers of frames for which static loops are made
CHUNK = 2048  # frames that are scored at a time; bounds the memory of a request
TRIAD = (39, 43, 46)  # the keys of C, E and G in the middle of the piano, for example requests
# The outputs of `tensors`, and their shapes for each frame.
SCORES: dict[str, list[int]] = {"nll": [], "strike_nll": [], "probabilities": [KEYS]}


def signatures(
    model: keras.Model, target: Target = PORTABLE, habits: Habits = NO_HABITS
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `prime` `<float32>[batch, time, 88]`, `prime_length` `<int32>[batch]` (0 =
      from nothing; later frames are ignored), `steps` `<int32>[batch]`, `temperature` and `top_p`
      `<float32>[batch]`, `seed` `<int32>[batch, 2]` -> `notes` `<float32>[batch, time, 88]` (0 or
      1; the prime first; 0 after `length`), `onsets` of the same shape (1 where a key is struck),
      `length` `<int32>[batch]` (`prime_length + steps`). At temperature 0 each note is the most
      likely one.
    - `tensors`: `notes` `<float32>[batch, time, 88]`, `length` `<int32>[batch]` -> `nll`
      `<float32>[batch, time - 1]`, in nats, of the frames from the second on, each given the frames
      before it; `strike_nll`, the same of the strikes of held keys, given all keys of the frame;
      `probabilities` `<float32>[batch, time - 1, 88]`, of each key given the past and (head
      `joint`) the lower keys with probabilities of at least 0.5. 0 after `length`.

    A key sounds where a value exceeds 0.5, and is struck again although it sounds in the frame
    before where a value exceeds 1.5. The outputs of an invalid row are zeros, `length`
    included. A row is invalid if

    - one of its frames has a NaN or an infinity,
    - its length is negative or exceeds its tensor,
    - `temperature` is outside 0..`HOTTEST`, `top_p` is outside 0..1, or either is NaN,
    - `steps` is outside 0..`STEPS`: longer music is composed in several requests, each with the
      notes so far as its prime, and is the same as in one,
    - it has more than `LONGEST` frames in all, or, in `tensors`, fewer than two,
    - it is beyond the budget of `MOST` frames; see `common.serving.rows.within_budget`.

    Args:
      model: of `tasks.music.model.build`.
      target: the device of the export.
      habits: of the training music; samples keep them.
    """
    layers = parts(model, habits)
    compose = _make_compose(layers, target)
    score = _make_score(layers, target)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, KEYS], tf.float32, name="prime"),
            tf.TensorSpec([None], tf.int32, name="prime_length"),
            tf.TensorSpec([None], tf.int32, name="steps"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.float32, name="top_p"),
            tf.TensorSpec([None, 2], tf.int32, name="seed"),
        ]
    )
    def serving_default(
        prime: tf.Tensor,
        prime_length: tf.Tensor,
        steps: tf.Tensor,
        temperature: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        valid = length_fits(prime_length, prime, at_least=0) & _finite_rows(prime, prime_length)
        # Compared one by one: the sum of two large numbers would overflow.
        valid &= (steps >= 0) & (steps <= STEPS) & (prime_length <= LONGEST - steps)
        # False for NaN.
        valid &= (temperature >= 0.0) & (temperature <= HOTTEST) & (top_p >= 0.0) & (top_p <= 1.0)
        valid = within_budget(valid, prime_length + steps, MOST)
        length = tf.where(valid, prime_length + steps, 0)
        inputs = {
            "prime": prime,
            "prime_length": prime_length,
            "length": length,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
        }
        fill = {"temperature": 1.0, "top_p": 1.0}
        outputs = run_valid(compose, inputs, valid, fill=fill, timed=["prime"])
        return {**outputs, "length": length}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, KEYS], tf.float32, name="notes"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(notes: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = length_fits(length, notes, at_least=2, at_most=LONGEST)
        valid = within_budget(valid & _finite_rows(notes, length), length, MOST)
        return run_valid(
            score,
            {"notes": notes, "length": length},
            valid,
            fill={"length": 1},
            timed=["notes"],
            steps=dict.fromkeys(SCORES, lambda time: tf.maximum(time - 1, 0)),
        )

    return {"serving_default": serving_default, "tensors": tensors}


def _finite_rows(notes: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return which rows have no NaN and no infinity in their first `length` frames.

    Args:
      notes: `<float>[batch, time, 88]`.
      length: `<int32>[batch]`.

    Returns:
      `<bool>[batch]`.
    """
    padding = ~tf.sequence_mask(length, tf.shape(notes)[1])
    return tf.reduce_all(tf.reduce_all(tf.math.is_finite(notes), axis=-1) | padding, axis=-1)


def _make_compose(layers: Parts, target: Target) -> Run:
    """Make the computation of `serving_default`; it is numeric, so accelerators can run it.

    Returns:
      A function of the inputs of `tasks.music.generation.generate`, which returns `notes` and
      `onsets`, with as many frames as `prime`.
    """

    def compose(prime: tf.Tensor, **options: tf.Tensor) -> dict[str, tf.Tensor]:
        steps = prime.shape[1] or tf.shape(prime)[1]
        notes = generate(layers, prime=prime, **options, steps=steps)
        before = tf.pad(notes, [[0, 0], [1, 0], [0, 0]])[:, :-1]
        return {"notes": sounding_keys(notes), "onsets": struck_keys(notes, before)}

    frames = {"notes": same, "onsets": same}
    return target.core("compose", compose, timed=["prime"], steps=frames, lengths=LENGTHS)


def _make_score(layers: Parts, target: Target) -> Run:
    """Make the computation of `tensors`.

    The recurrent network reads whole pieces. The network over keys, which needs far more memory per
    frame, then scores the frames of all pieces, `CHUNK` at a time.

    Returns:
      A function of `notes` and `length`, which returns `SCORES`.
    """
    members = layers.members
    states = [f"state_{n}" for n in range(len(members))]

    def read(notes: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        past = look_back(notes)
        outlook = layers.outlook(*past)
        mask = length_mask(tf.maximum(length, 1), notes)  # a static core has empty rows
        outputs = [member.encoder(outlook, mask=mask)[0] for member in members]
        return {**past._asdict(), **dict(zip(states, outputs, strict=True))}

    def judge(notes: tf.Tensor, **features: tf.Tensor) -> dict[str, tf.Tensor]:
        past = Past(*(features[name] for name in Past._fields))
        frame = Frame(members, [features[name] for name in states], past)
        return {
            "nll": frame.nll(notes),
            "strike_nll": frame.strike_nll(notes),
            "probabilities": frame.greedy_probabilities(),
        }

    timed = dict.fromkeys([*Past._fields, *states], same)
    read_pieces = target.core("read", read, timed=["notes"], steps=timed, lengths=LENGTHS)
    score_frames = target.core("judge", judge, batch=CHUNK)

    def score(notes: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        real = tf.sequence_mask(length, tf.shape(notes)[1])
        notes = levels(notes) * tf.cast(real, tf.float32)[:, :, None]
        features = read_pieces(notes=notes, length=length)
        # All frames but the first of each row. A static core returns step 0 for all frames of a row
        # that is too long.
        places = tf.where(real & (features["step"] > 0))
        outputs = _run_frames(
            score_frames,
            {"notes": notes, **features},
            places,
            shapes=SCORES,
        )
        return {name: value[:, 1:] for name, value in outputs.items()}

    return score


def _run_frames(
    run: Run,
    inputs: Mapping[str, tf.Tensor],
    places: tf.Tensor,
    *,
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, tf.Tensor]:
    """Run a computation on some frames, `CHUNK` of them at a time.

    Args:
      run: a function of tensors `[frames, ...]`.
      inputs: its inputs for all frames, each `[batch, time, ...]`.
      places: `<int64>[frames, 2]`: row and step of the frames to run.
      shapes: its outputs, and their shapes after the first dimension.

    Returns:
      Its outputs `<float32>[batch, time, ...]`, 0 at all other frames.
    """
    count = tf.shape(places)[0]
    chunks = (count + CHUNK - 1) // CHUNK
    arrays = {
        name: tf.TensorArray(tf.float32, chunks, element_shape=[None, *shape], infer_shape=False)
        for name, shape in shapes.items()
    }

    def body(chunk: tf.Tensor, arrays: Mapping[str, tf.TensorArray]) -> tuple[Any, ...]:
        rows = places[chunk * CHUNK : (chunk + 1) * CHUNK]
        outputs = run(**{name: tf.gather_nd(value, rows) for name, value in inputs.items()})
        return chunk + 1, {name: arrays[name].write(chunk, outputs[name]) for name in shapes}

    start = (tf.constant(0), arrays)
    _, arrays = tf.while_loop(lambda chunk, _: chunk < chunks, body, start, parallel_iterations=1)

    def to_frames(array: tf.TensorArray, shape: Sequence[int]) -> tf.Tensor:
        values = tf.cond(chunks > 0, array.concat, lambda: tf.zeros([0, *shape]))
        size = tf.concat([tf.shape(inputs["notes"])[:2], tf.constant(shape, tf.int32)], axis=0)
        return tf.scatter_nd(tf.cast(places, tf.int32), values, size)

    return {name: to_frames(arrays[name], shape) for name, shape in shapes.items()}


def examples() -> Examples:
    """Return requests for each signature: from nothing, a continuation, an invalid row."""
    prime = np.zeros((3, 6, KEYS), np.float32)
    prime[:, :, TRIAD] = 1.0
    prime[:, 2, TRIAD] = 2.0  # struck again
    request = {
        "prime": prime,
        "prime_length": np.array([0, 4, 7]),
        "steps": np.array([8, 4, 4]),
        "temperature": np.array([1.0, 0.0, 1.0]),
        "top_p": np.array([1.0, 1.0, 0.9]),
        "seed": np.array([[0, 7], [1, 2], [3, 4]]),
    }
    long = np.zeros((2, 48, KEYS), np.float32)
    long[:, ::2, TRIAD] = 1.0
    pieces = [
        {"notes": prime, "length": np.array([6, 2, 0])},
        {"notes": long, "length": np.array([48, 20])},
    ]
    return {"serving_default": [request], "tensors": pieces}
