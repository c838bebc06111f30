"""A model of `--streaming`, chunk by chunk and whole."""

from common import ctc
from common.errors import InputError
from common.serving.served import load_export
from tasks.speech import audio, features, microphone, model, serving, streaming
from tasks.speech.config import Config
from tests.tasks import commands
from tests.tasks.own.speech import TINY, speak, write_folder
from tests.tasks.speech.recordings import spoken

import keras
import numpy as np
import pytest
import tensorflow as tf

LETTERS = (" ", "a", "b", "c")
RATE = audio.RATE


def build(cell="gru", strides=(2, 2)):
    keras.utils.set_random_seed(1)
    config = Config(
        streaming=True, units=6, layers=2, channels=3, bands=16, cell=cell, strides=strides
    )
    return model.build(config, symbols=len(LETTERS))


def recognizer(built):
    return serving.Recognizer(
        built, LETTERS, None, weight=0.0, bonus=0.0, beam=4, max_samples=80_000
    )


@pytest.mark.parametrize(
    ("cell", "strides"), [("gru", (2, 2)), ("lstm", (3, 1)), ("simple_rnn", (4, 1))]
)
def test_chunks_have_the_outputs_of_the_whole_recording(cell, strides):
    built = build(cell, strides)
    stream = streaming.Stream(built)
    sounds = np.stack([speak("abc cab", np.random.default_rng(n))[:20_000] for n in range(2)])
    sounds[1, :4_000] = 0.0
    inputs = {"audio": tf.constant(sounds), "length": tf.constant([20_000, 20_000])}
    whole = built(inputs)["log_probs"].numpy()
    state, parts = tf.zeros([2, stream.size]), []
    for start in range(0, 20_000, stream.chunk):
        chunk = tf.constant(sounds[:, start : start + stream.chunk])
        log_probs, state = stream(chunk, state, serving.LOUDEST)
        parts.append(log_probs.numpy())
    together = np.concatenate(parts, axis=1)
    steps = 20_000 // stream.step
    assert together.shape[1] == steps >= whole.shape[1] - 1
    count = min(steps, whole.shape[1]) - 1  # the last step of the whole may lack a frame
    np.testing.assert_allclose(together[:, :count], whole[:, :count], atol=1e-4)
    assert np.abs(whole[0, 1:] - whole[0, :-1]).max() > 1e-2  # something is heard


def test_running_statistics_forget_silence_and_loudness():
    sound = speak("abc", np.random.default_rng(1))
    pause = 1e-4 * np.random.default_rng(2).normal(size=RATE).astype(np.float32)
    values, frames = features.running_log_mel(tf.constant(sound[None]), [len(sound)], 32)
    longer = np.concatenate([pause, sound])
    later, _ = features.running_log_mel(tf.constant(longer[None]), [len(longer)], 32)
    loud = values[0].numpy().mean(axis=1) > 0.0
    shifted = later[0, RATE // 160 :].numpy()[: len(loud)]
    count = min(len(shifted), int(frames[0]))
    half = slice(count // 2, count)
    difference = np.abs(shifted[half] - values[0].numpy()[half])[loud[half]]
    assert difference.mean() < 0.1
    soft, _ = features.running_log_mel(tf.constant(0.1 * sound[None]), [len(sound)], 32)
    assert np.abs(soft[0].numpy()[half] - values[0].numpy()[half])[loud[half]].mean() < 0.1


def test_the_signatures_of_a_stream_decode_what_it_said_and_keep_bad_rows_apart():
    made = recognizer(build())
    stream = made.stream
    found = serving.signatures(made)
    assert set(found) == {"serving_default", "tensors", "explain", "stream", "decode"}
    assert serving.stream_settings(made) == {"chunk_samples": 5_120, "state_size": stream.size}
    examples = serving.examples([8_000], made)
    assert {name: len(rows) for name, rows in examples.items()} == {
        **dict.fromkeys(("serving_default", "tensors", "explain"), 1),
        **{"stream": 2, "decode": 1},
    }
    sound = speak("abc", np.random.default_rng(0))[: stream.chunk]
    chunks = np.stack([sound, sound, np.zeros_like(sound), sound])
    chunks[1, 7] = np.nan
    state = np.zeros((4, stream.size), np.float32)
    state[3, 5] = np.inf
    outputs = found["stream"](tf.constant(chunks), tf.constant(state))
    rows = outputs["log_probs"].numpy()
    assert np.isfinite(rows).all() and np.isfinite(outputs["state"]).all()
    np.testing.assert_allclose(rows[0], rows[3], atol=1e-5)  # an invalid state is a start
    np.testing.assert_allclose(rows[1], rows[2], atol=1e-5)  # an invalid chunk is silence
    assert found["stream"](tf.zeros([0, 0]), tf.zeros([0, stream.size]))["log_probs"].shape[0] == 0
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.full(5, 0.2), (4, 9)))
    log_probs = np.maximum(log_probs, -20.0).astype(np.float32)
    log_probs[2, 3, 1] = np.nan
    decoded = found["decode"](tf.constant(log_probs), tf.constant([9, 10, 9, 0]))
    hypotheses = ctc.beam_search(log_probs[:1], [9], width=4)
    assert decoded["text"][0] == made.to_text(hypotheses)["text"][0]
    assert decoded["text"][1:].numpy().tolist() == [b""] * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": (6, 1)}, "--streaming needs --strides of at most 5 3"),
        ({"target": "tpu"}, "--streaming is for --target portable, not tpu"),
    ],
)
def test_what_cannot_stream_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Config(streaming=True, **wrong)


@pytest.mark.commands
def test_an_export_hears_words_while_they_are_spoken(tmp_path, command_environment):
    write_folder(tmp_path / "mine", 150, seed=0)
    done = commands.run(
        *("speech.train", "--data", "mine", "--streaming", "--epochs", 16, *TINY),
        *("--learning_rate", 0.02, "--score", "test"),
        folder=tmp_path,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    served = load_export(tmp_path / "saved_models" / "speech")
    size = microphone.block_samples(served)
    assert size == served.settings["chunk_samples"] == 5_120
    spoken_texts = spoken(3, seed=4)
    pause = np.zeros(2 * RATE, np.float32)
    sound = np.concatenate([part for _, said in spoken_texts for part in (said, pause)])
    blocks = [sound[at : at + size] for at in range(0, len(sound) - size + 1, size)]
    heard = list(microphone.listen(served, blocks))
    finals = [row.text for row in heard if row.is_final]
    whole = served.call("serving_default", **audio.request([said for _, said in spoken_texts]))
    right = [text for text, _ in spoken_texts]
    assert sum(a == b for a, b in zip(finals, right, strict=True)) >= 2
    assert sum(a == b.decode() for a, b in zip(finals, whole["text"], strict=True)) >= 2
    assert any(not row.is_final for row in heard)
