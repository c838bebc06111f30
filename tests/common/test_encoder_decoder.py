"""Encoder and decoder against NumPy, against themselves step by step, and against enumeration."""

import functools
import itertools

from common import decoding, encoder_decoder
from common.encoder_decoder import AttentionDecoder

import keras
import numpy as np
import pytest
import tensorflow as tf

START, END, SYMBOLS = 1, 2, 9
LENGTH = np.array([6, 1, 3, 4], np.int32)
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, SYMBOLS, (4, 6)).astype(np.int32)
TARGET = RANDOM.integers(0, SYMBOLS, (4, 5)).astype(np.int32)
KINDS = [
    {"cell": "gru"},
    {"cell": "lstm", "decoder_layers": 1, "attention": "additive", "lexical": True},
    {"cell": "gru", "input_feeding": True, "encoder_layers": 2, "shared": True},
    {"cell": "lstm", "input_feeding": True, "decoder_layers": 3, "attention": "additive"},
]


def each_kind(thorough=(), slow=()):
    """Parametrize a test by `kind`; the kinds at some places of `KINDS` belong to other tiers."""
    marked = dict.fromkeys(thorough, pytest.mark.thorough) | dict.fromkeys(slow, pytest.mark.slow)
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(kind, marks=marked.get(place, ()), id="-".join(map(str, kind.values())))
            for place, kind in enumerate(KINDS)
        ],
    )


kinds = each_kind()


@pytest.fixture(scope="module", autouse=True)
def shared():
    """Forget the models and functions that these tests share."""
    yield
    for function in (make, traced, make_search):
        function.cache_clear()


@functools.cache
def make(**kind):
    """Return a model, which no test may change, since tests of equal kinds share it."""
    keras.utils.set_random_seed(3)
    sizes = {"source_size": SYMBOLS, "target_size": SYMBOLS, "embedding": 6, "units": 8}
    model = encoder_decoder.build(**{**sizes, **kind})
    # Larger than the initial weights, so that no distribution is nearly uniform.
    model.set_weights([2.0 * w + 0.1 * RANDOM.normal(size=w.shape) for w in model.get_weights()])
    return model


@functools.cache
def traced(model):
    """Trace a model once for inputs of all sizes, because loops are slow in eager mode."""
    table, row = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
    return tf.function(model, input_signature=[{"ids": table, "length": row, "target_ids": table}])


def run_model(model, ids=IDS, length=LENGTH, target=TARGET):
    inputs = {"ids": ids, "length": length, "target_ids": target}
    outputs = traced(model)({name: tf.constant(value) for name, value in inputs.items()})
    return {name: np.asarray(value) for name, value in outputs.items()}


def log_probabilities(model, outputs):
    """Return the log-probabilities of the next token by NumPy; embeddings are tied."""
    table = np.asarray(encoder_decoder.token_embedding(model).embeddings)
    scores = outputs @ table.T
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


# --- one step and all steps -----------------------------------------------------------------------


@kinds
def test_steps_equal_teacher_forcing(kind):
    model = make(**kind)
    expected = log_probabilities(model, run_model(model)["answers"])
    encoded = encoder_decoder.encode(model, tf.constant(IDS), tf.constant(LENGTH))
    step = encoder_decoder.make_step(model, encoded)
    state = encoded.state
    for k in range(TARGET.shape[1]):
        state, scores = step(state, tf.constant(TARGET[:, k]))
        np.testing.assert_allclose(tf.nn.log_softmax(scores), expected[:, k], atol=2e-5)


@kinds
def test_hypotheses_of_a_row_attend_to_its_own_source(kind):
    model = make(**kind)
    encoded = encoder_decoder.encode(model, tf.constant(IDS), tf.constant(LENGTH))
    step = encoder_decoder.make_step(model, encoded)
    first = RANDOM.integers(0, SYMBOLS, (4, 3)).astype(np.int32)
    state = decoding.for_each_hypothesis(encoded.state, 3)
    _, together = step(state, tf.constant(first.reshape(-1)))
    for hypothesis in range(3):
        _, alone = step(encoded.state, tf.constant(first[:, hypothesis]))
        np.testing.assert_allclose(
            np.reshape(together, (4, 3, SYMBOLS))[:, hypothesis], alone, atol=1e-5
        )


def test_tokens_that_are_never_written_are_impossible():
    model = make()
    encoded = encoder_decoder.encode(model, tf.constant(IDS), tf.constant(LENGTH))
    token = tf.constant(TARGET[:, 0])
    _, plain = encoder_decoder.make_step(model, encoded)(encoded.state, token)
    _, masked = encoder_decoder.make_step(model, encoded, never=(0, 1))(encoded.state, token)
    assert (masked.numpy()[:, :2] < -1e8).all()
    expected = np.exp(plain[:, 2:]) / np.exp(plain[:, 2:]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tf.nn.softmax(masked)[:, 2:], expected, rtol=1e-4)


# --- NumPy ----------------------------------------------------------------------------------------


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm_step(layer, x, h, c):
    kernel, recurrent, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_decoder_equals_numpy(layers, feeding):
    keras.utils.set_random_seed(1)
    layer = AttentionDecoder("lstm", 4, layers, 5, input_feeding=feeding)
    inputs, memory = RANDOM.normal(size=(3, 6)), RANDOM.normal(size=(4, 7))
    summary, real = RANDOM.normal(size=7), 3
    tensors = [tf.constant(x[None], tf.float32) for x in (inputs, memory)]
    mask = tf.constant([[True] * real + [False]])
    outputs, attention = layer(*tensors, mask, tf.constant(summary[None], tf.float32))

    kernel, bias = (np.asarray(w, np.float64) for w in layer.bridge.get_weights())
    states = np.split(np.tanh(summary @ kernel + bias), 2 * layers)
    keys = memory @ layer.attention.get_weights()[0]
    output = np.zeros(5)
    for k, x in enumerate(inputs):
        x = np.concatenate([x, output]) if feeding else x
        h, states[1] = lstm_step(layer.recurrent[0], x, states[0], states[1])
        states[0] = h
        raised = np.exp(keys[:real] @ h / np.sqrt(4))
        weights = raised / raised.sum()
        context = weights @ memory[:real]
        if layers == 2:
            x = np.concatenate([h, context])
            h, states[3] = lstm_step(layer.recurrent[1], x, states[2], states[3])
            states[2] = h
        output = np.tanh(np.concatenate([h, context]) @ layer.answer.get_weights()[0])
        np.testing.assert_allclose(outputs[0, k], output, atol=1e-5)
        np.testing.assert_allclose(attention[0, k], [*weights, 0.0], atol=1e-6)


def test_the_memory_is_the_encoding_of_each_token_and_the_token_itself():
    model = make(cell="gru", encoder_layers=2)
    encoder = model.get_layer("encoder")
    vectors = tf.constant(RANDOM.normal(size=(4, 6, 6)), tf.float32)
    memory = encoder({"vectors": vectors, "length": tf.constant(LENGTH)})["memory"]
    mask = tf.sequence_mask(LENGTH, 6)
    layers = encoder.get_layer("layers")
    first, _, _ = layers.layers[0](vectors, mask=mask)
    second, _, _ = layers.layers[1](first, mask=mask)
    expected = first + second + vectors @ encoder.get_layer("shortcut").get_weights()[0]
    np.testing.assert_allclose(memory, expected, atol=1e-5)


def test_word_dropout_drops_whole_tokens_in_training_only():
    model = encoder_decoder.build(
        source_size=9, target_size=9, embedding=6, units=8, dropout=0.0, word_dropout=0.4
    )
    for part in ("encoder", "decoder"):
        (layer,) = (x for x in model.get_layer(part).layers if getattr(x, "rate", 0) == 0.4)
        kept = layer(tf.ones([20, 10, 6]), training=True).numpy()
        assert (kept == kept[:, :, :1]).all() and 0.3 < (kept[:, :, 0] == 0).mean() < 0.5
        assert (layer(tf.ones([2, 3, 6])).numpy() == 1).all()


def test_lexical_answer_equals_the_formula_of_its_paper():
    plain, lexical = make(), make(lexical=True)
    shared = [weight for weight in lexical.weights if "lexical" not in weight.path]
    assert len(shared) + 1 == len(lexical.weights)
    for weight, value in zip(shared, plain.get_weights(), strict=True):
        weight.assign(value)
    names = {layer.name: layer for layer in lexical.layers}
    vectors = names["source_embedding"].get_weights()[0][IDS] * 6**0.5
    kernel = lexical.get_layer("decoder").get_layer("lexical").get_weights()[0]
    outputs = run_model(lexical)
    words = np.tanh(outputs["attention"] @ vectors)
    expected = run_model(plain)["answers"] + words + np.tanh(words @ kernel)
    np.testing.assert_allclose(outputs["answers"], expected, atol=1e-5)
    make.cache_clear()


# --- padding --------------------------------------------------------------------------------------


@kinds
def test_padding_of_the_source_changes_nothing(kind):
    model = make(**kind)
    plain = run_model(model)
    junk = np.concatenate([IDS, np.full((4, 3), 7, np.int32)], axis=1)
    for row, length in enumerate(LENGTH):
        junk[row, length:] = RANDOM.integers(0, SYMBOLS, 9 - length)
    padded = run_model(model, ids=junk)
    np.testing.assert_allclose(padded["answers"], plain["answers"], atol=1e-5)
    np.testing.assert_allclose(padded["attention"][:, :, :6], plain["attention"], atol=1e-6)
    assert not padded["attention"][:, :, 6:].any()
    real = np.arange(6) < LENGTH[:, None]
    np.testing.assert_allclose(plain["attention"].sum(axis=-1), 1.0, atol=1e-5)
    assert not plain["attention"][~np.broadcast_to(real[:, None], plain["attention"].shape)].any()


@kinds
def test_later_targets_change_no_earlier_output(kind):
    model = make(**kind)
    other = TARGET.copy()
    other[:, 3:] = (other[:, 3:] + 1) % SYMBOLS
    one, two = run_model(model)["answers"], run_model(model, target=other)["answers"]
    np.testing.assert_allclose(one[:, :3], two[:, :3], atol=1e-6)
    assert np.abs(one[:, 3:] - two[:, 3:]).max() > 1e-3


# --- search ---------------------------------------------------------------------------------------


@functools.cache
def make_search(model, beam, longest):
    """Trace a search once for inputs of all sizes."""
    chosen = {"end": END, "max_length": longest}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    )
    def run(ids, length):
        encoded = encoder_decoder.encode(model, ids, length)
        step = encoder_decoder.make_step(model, encoded)
        start = tf.fill([tf.shape(ids)[0]], START)
        if beam == 0:
            return decoding.greedy(step, encoded.state, start, **chosen)
        # Complete rows leave the batch, and with them their sources.
        options = {"beam": beam, "context": encoded, **chosen}
        return decoding.beam_search(step, encoded.state, start, **options)

    return run


def search(model, ids, length, *, beam, longest=4):
    return make_search(model, beam, longest)(tf.constant(ids), tf.constant(length))


@pytest.mark.thorough
def test_a_wide_beam_finds_the_best_of_all_sequences():
    model = make(source_size=5, target_size=5)
    ids, length = IDS[:1] % 5, LENGTH[:1]
    others = [symbol for symbol in range(5) if symbol != END]
    every = [list(s) for n in range(4) for s in itertools.product(others, repeat=n)]
    # Later tokens do not affect earlier outputs, so one batch holds all sequences.
    rows = [[START, *sequence, *[0] * (3 - len(sequence))] for sequence in every]
    target = np.array(rows, np.int32)
    count = len(every)
    outputs = run_model(model, np.repeat(ids, count, 0), np.repeat(length, count), target)
    rows = log_probabilities(model, outputs["answers"])
    scores = {
        tuple(sequence): sum(
            rows[k, place, symbol] for place, symbol in enumerate([*sequence, END])
        )
        for k, sequence in enumerate(every)
    }
    best = sorted(scores, key=scores.get, reverse=True)[:3]
    decoded = search(model, ids, length, beam=len(every), longest=3)
    for place, sequence in enumerate(best):
        assert decoded.tokens.numpy()[0, place, : len(sequence)].tolist() == list(sequence)
        assert decoded.length.numpy()[0, place] == len(sequence)
        np.testing.assert_allclose(decoded.score[0, place], scores[sequence], atol=1e-4)


@each_kind(thorough=[2], slow=[0, 3])
def test_a_beam_of_one_is_greedy_and_other_rows_change_nothing(kind):
    model = make(**kind)
    greedy = search(model, IDS, LENGTH, beam=0)
    one = search(model, IDS, LENGTH, beam=1)
    np.testing.assert_array_equal(one.tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(one.score[:, 0], greedy.score, atol=1e-5)
    many = search(model, IDS, LENGTH, beam=4)
    for row in range(4):
        alone = search(model, IDS[row : row + 1, : LENGTH[row]], LENGTH[row : row + 1], beam=4)
        np.testing.assert_array_equal(alone.tokens[0], many.tokens[row])
        np.testing.assert_allclose(alone.score[0], many.score[row], atol=1e-4)


# --- files, errors, learning ----------------------------------------------------------------------


@each_kind(thorough=[2], slow=[0, 3])
def test_a_keras_file_restores_the_models(kind, tmp_path):
    model = make(**kind)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert len(again.weights) == len(model.weights)
    for name, value in run_model(model).items():
        np.testing.assert_array_equal(run_model(again)[name], value)
    np.testing.assert_array_equal(
        search(again, IDS, LENGTH, beam=4).tokens, search(model, IDS, LENGTH, beam=4).tokens
    )


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="source_size and target_size to be equal, got 9 and 8"):
        make(shared=True, target_size=8)
    with pytest.raises(ValueError, match="units must be even"):
        make(units=7)
    with pytest.raises(ValueError, match="layers must be 1 or more"):
        make(decoder_layers=0)


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.thorough
def test_learns_to_reverse_sequences(feeding):
    keras.utils.set_random_seed(0)
    model = encoder_decoder.build(
        source_size=8, target_size=8, embedding=16, units=30, dropout=0.0, input_feeding=feeding
    )
    embedding = encoder_decoder.token_embedding(model)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train(ids):
        reversed_ids = ids[:, ::-1]
        length = tf.fill([tf.shape(ids)[0]], 5)
        target = tf.pad(reversed_ids[:, :-1], [[0, 0], [1, 0]], constant_values=START)
        with tf.GradientTape() as tape:
            inputs = {"ids": ids, "length": length, "target_ids": target}
            scores = embedding(model(inputs, training=True)["answers"], reverse=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(reversed_ids, scores)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    random = np.random.default_rng(1)
    rows = (tf.constant(random.integers(3, 8, (32, 5)), tf.int32) for _ in range(300))
    losses = [float(train(ids)) for ids in rows]
    assert np.mean(losses[-20:]) < 0.1
