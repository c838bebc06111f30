"""The first notes in, music out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.rnn import length_mask
from common.serving.targets import PORTABLE, Target, fit, same
from tasks.music.generation import Frame, Parts, generate, parts
from tasks.music.model import KEYS, Past, look_back

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = "LiteRT needs one fixed number of frames, which every piece of music would pay for"
LONGEST = 4096  # frames of an answer, the prime included
LENGTHS = (64, 512, LONGEST)  # for which static loops are made
CHUNK = 2048  # frames that are scored at a time: bounds the memory, whatever the request
TRIAD = (39, 43, 46)  # keys of C, E and G in the middle of the piano, for example requests


def signatures(
    model: keras.Model, target: Target = PORTABLE
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `prime` `<float32>[batch, time, 88]`, `prime_length` `<int32>[batch]` (0 =
      from nothing; frames beyond it are ignored), `steps` `<int32>[batch]`, `temperature` and
      `top_p` `<float32>[batch]`, `seed` `<int32>[batch, 2]` -> `notes` `<float32>[batch, time, 88]`
      (0 or 1; the prime first; 0 beyond `length`), `length` `<int32>[batch]` (`prime_length +
      steps`). Temperature 0 takes the likeliest note each time.
    - `tensors`: `notes` `<float32>[batch, time, 88]`, `length` `<int32>[batch]` -> `nll`
      `<float32>[batch, time - 1]`, in nats, of the frames from the second on, each given those
      before; `probabilities` `<float32>[batch, time - 1, 88]`, of each key given the past and (head
      `joint`) the keys of 0.5 and more below it. 0 beyond `length`.

    A key sounds where a value is over 0.5. A bad row gets the empty answer, zeros with a length of
    0: one with a NaN or an infinity among its real frames, a length that is negative or beyond its
    tensor, a temperature below 0 or a `top_p` outside 0..1 or NaN in either, more than `LONGEST`
    frames in all, or, in `tensors`, fewer than two frames.
    """
    layers = parts(model)

    def compose(prime: tf.Tensor, **asked: tf.Tensor) -> dict[str, tf.Tensor]:
        steps = prime.shape[1] or tf.shape(prime)[1]
        return {"notes": generate(layers, prime=prime, **asked, steps=steps)}

    composing = target.core(
        "compose", compose, timed=["prime"], steps={"notes": same}, lengths=LENGTHS
    )

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
        # Compared one by one, since a sum of huge numbers would run over.
        sound = sound_rows(prime, prime_length) & (steps >= 0) & (steps <= LONGEST)
        sound &= (prime_length <= LONGEST) & (prime_length <= LONGEST - steps)
        sound &= (temperature >= 0.0) & (top_p >= 0.0) & (top_p <= 1.0)  # false for NaN
        length = tf.where(sound, prime_length + steps, 0)
        longest = tf.reduce_max(tf.concat([length, [1]], axis=0))
        # At least one row: the loop over the steps has no shapes for none.
        rows = tf.shape(prime)[0]
        none = tf.maximum(0, 1 - rows)
        notes = composing(
            prime=fit(tf.pad(prime, [[0, none], [0, 0], [0, 0]]), longest),
            prime_length=tf.pad(tf.where(sound, prime_length, 0), [[0, none]]),
            length=tf.pad(length, [[0, none]]),
            temperature=tf.pad(tf.where(sound, temperature, 1.0), [[0, none]]),
            top_p=tf.pad(tf.where(sound, top_p, 1.0), [[0, none]]),
            seed=tf.pad(seed, [[0, none], [0, 0]]),
        )["notes"]
        return {"notes": notes[:rows], "length": length}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, KEYS], tf.float32, name="notes"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(notes: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return score(layers, notes, length, target)

    return {"serving_default": serving_default, "tensors": tensors}


def sound_rows(notes: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Whether a row's length fits its tensor, and its frames up to there are numbers."""
    beyond = ~tf.sequence_mask(length, tf.shape(notes)[1])
    finite = tf.reduce_all(tf.reduce_all(tf.math.is_finite(notes), axis=-1) | beyond, axis=-1)
    return (length >= 0) & (length <= tf.shape(notes)[1]) & finite


def score(
    model: Parts, notes: tf.Tensor, length: tf.Tensor, target: Target = PORTABLE
) -> dict[str, tf.Tensor]:
    """What `tensors` answers; see `signatures`."""

    def read(notes: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        past = look_back(notes)
        outlook = model.outlook(*past)
        mask = length_mask(tf.maximum(length, 1), notes)
        states = [member.encoder(outlook, mask=mask)[0] for member in model.members]
        return {**past._asdict(), **{f"state_{n}": state for n, state in enumerate(states)}}

    def judge(notes: tf.Tensor, **known: tf.Tensor) -> dict[str, tf.Tensor]:
        states = [known[f"state_{n}"] for n in range(len(model.members))]
        frame = Frame(model.members, states, Past(*(known[name] for name in Past._fields)))
        return {"nll": frame.nll(notes), "probabilities": frame.likely()}

    names = (*Past._fields, *(f"state_{n}" for n in range(len(model.members))))
    reading = target.core(
        "read", read, timed=["notes"], steps=dict.fromkeys(names, same), lengths=LENGTHS
    )
    judging = target.core("judge", judge, batch=CHUNK)

    time = tf.shape(notes)[1]
    sound = sound_rows(notes, length) & (length >= 2)
    length = tf.where(sound, length, 0)
    notes = tf.pad(notes, [[0, 0], [0, tf.maximum(0, 2 - time)], [0, 0]])
    real = tf.sequence_mask(length, tf.shape(notes)[1])
    notes = tf.cast((notes > 0.5) & real[:, :, None], tf.float32)
    known = reading(notes=notes, length=length)
    # The real frames but the first of each row, a chunk of them at a time.
    places = tf.where(real & (known["step"] > 0))
    count = tf.shape(places)[0]
    chunks = (count + CHUNK - 1) // CHUNK
    nlls = tf.TensorArray(tf.float32, chunks, element_shape=[None], infer_shape=False)
    shares = tf.TensorArray(tf.float32, chunks, element_shape=[None, KEYS], infer_shape=False)

    def body(chunk: tf.Tensor, nlls: tf.TensorArray, shares: tf.TensorArray) -> tuple:
        rows = places[chunk * CHUNK : (chunk + 1) * CHUNK]
        here = {name: tf.gather_nd(value, rows) for name, value in known.items()}
        found = judging(notes=tf.gather_nd(notes, rows), **here)
        nlls = nlls.write(chunk, found["nll"])
        return chunk + 1, nlls, shares.write(chunk, found["probabilities"])

    _, nlls, shares = tf.while_loop(
        lambda chunk, *_: chunk < chunks,
        body,
        (tf.constant(0), nlls, shares),
        parallel_iterations=1,
    )

    def put_back(rows: tf.TensorArray, width: Sequence[int]) -> tf.Tensor:
        empty = lambda: tf.zeros([0, *width])  # noqa: E731
        found = tf.cond(chunks > 0, rows.concat, empty)
        shape = tf.concat([tf.shape(notes)[:2], tf.constant(width, tf.int32)], axis=0)
        spread = tf.scatter_nd(tf.cast(places, tf.int32), found, shape)
        return spread[:, 1 : tf.maximum(time, 1)]

    return {"nll": put_back(nlls, []), "probabilities": put_back(shares, [KEYS])}


def examples() -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature: from nothing, a continuation, a bad row."""
    prime = np.zeros((3, 6, KEYS), np.float32)
    prime[:, :, TRIAD] = 1.0
    asked = {
        "prime": prime,
        "prime_length": np.array([0, 4, 7]),
        "steps": np.array([8, 4, 4]),
        "temperature": np.array([1.0, 0.0, 1.0]),
        "top_p": np.array([1.0, 1.0, 0.9]),
        "seed": np.array([[0, 7], [1, 2], [3, 4]]),
    }
    long = np.zeros((2, 48, KEYS), np.float32)
    long[:, ::2, TRIAD] = 1.0
    scored = [{"notes": prime, "length": np.array([6, 2, 0])}]
    scored.append({"notes": long, "length": np.array([48, 20])})
    return {"serving_default": [asked], "tensors": scored}
