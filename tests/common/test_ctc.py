"""CTC against enumeration of all paths and against `tf.nn.ctc_loss`."""

import itertools
import math
from collections import defaultdict

from common import ctc
from tests.common.test_ngram import TRANSCRIPTS, Counted

import numpy as np
import pytest
import tensorflow as tf


def random_log_probs(shape, seed=0, sharp=2.0):
    logits = np.random.default_rng(seed).normal(size=shape) * sharp
    return tf.nn.log_softmax(tf.constant(logits, tf.float32)).numpy()


def read(path, blank):
    """Return the text of a path: repeats merged, blanks removed."""
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def enumerate_texts(log_probs):
    """Return the log-probability of every text, by all paths of `[time, symbols]`."""
    time, symbols = log_probs.shape
    sums = defaultdict(float)
    for path in itertools.product(range(symbols), repeat=time):
        sums[read(path, symbols - 1)] += math.exp(sum(log_probs[t, s] for t, s in enumerate(path)))
    return {text: math.log(value) for text, value in sums.items()}


def pad(labels):
    width = max(1, *map(len, labels))
    array = np.zeros((len(labels), width), np.int32)
    for row, label in enumerate(labels):
        array[row, : len(label)] = label
    return array, np.array([len(label) for label in labels], np.int32)


LABELS = [(0, 1), (1, 1), (), (2, 0, 2), (0,)]
FRAMES = np.array([5, 4, 3, 5, 1], np.int32)


@pytest.fixture(scope="module")
def batch():
    labels, length = pad(LABELS)
    return random_log_probs((5, 5, 4)), labels, FRAMES, length


@pytest.mark.parametrize("function", [lambda *a: -ctc.loss(*a), ctc.log_likelihood])
def test_likelihood_by_enumeration(batch, function):
    log_probs, labels, frames, length = batch
    likelihood = function(log_probs, labels, frames, length).numpy()
    for row, label in enumerate(LABELS):
        truth = enumerate_texts(log_probs[row, : frames[row]])[label]
        assert likelihood[row] == pytest.approx(truth, abs=3e-5)


def test_likelihood_of_all_texts_sums_to_one():
    log_probs = random_log_probs((1, 4, 3), seed=3)
    texts = list(enumerate_texts(log_probs[0]))
    labels, length = pad(texts)
    many = np.repeat(log_probs, len(texts), axis=0)
    likelihood = ctc.log_likelihood(many, labels, np.full(len(texts), 4), length)
    assert np.exp(likelihood).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_four_forms_agree_with_gradients(seed):
    """Compare our form, plain and compiled, with TensorFlow's sparse and dense forms."""
    rng = np.random.default_rng(seed)
    logits = tf.constant(rng.normal(size=(6, 40, 12)) * 3.0, tf.float32)
    length = rng.integers(1, 13, 6).astype(np.int32)
    labels = rng.integers(0, 11, (6, 12)).astype(np.int32)
    frames = rng.integers(26, 41, 6).astype(np.int32)

    def dense(log_probs, labels, frames, length):
        return -tf.nn.ctc_loss(
            labels, log_probs, length, frames, logits_time_major=False, blank_index=11
        )

    def value_and_gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(tf.nn.log_softmax(logits), labels, frames, length)
            total = tf.reduce_sum(value * tf.range(1.0, 7.0))
        return value.numpy(), tape.gradient(total, logits).numpy()

    expected, slope = value_and_gradient(ctc.log_likelihood)

    def sparse(log_probs, labels, frames, length):
        return -tf.nn.ctc_loss(
            tf.RaggedTensor.from_tensor(labels, length).to_sparse(),
            log_probs,
            None,
            frames,
            logits_time_major=False,
            blank_index=11,
        )

    compiled = tf.function(ctc.log_likelihood, jit_compile=True)
    compiled_loss = tf.function(lambda *a: -ctc.loss(*a), jit_compile=True)
    for function in (lambda *a: -ctc.loss(*a), sparse, dense, compiled, compiled_loss):
        value, gradient = value_and_gradient(function)
        np.testing.assert_allclose(value, expected, rtol=3e-5)
        np.testing.assert_allclose(gradient, slope, atol=2e-3)
    assert np.abs(slope[0, frames[0] :]).max(initial=0.0) == 0.0


def test_the_kernel_and_the_lattice_agree_for_empty_labels_and_labels_that_do_not_fit(batch):
    log_probs, labels, frames, length = batch
    frames = np.array([5, 4, 3, 2, 0], np.int32)  # the last two do not fit

    def value_and_gradient(function):
        variable = tf.constant(log_probs)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            value = function(variable, labels, frames, length)
        return value.numpy(), tape.gradient(value, variable).numpy()

    value, gradient = value_and_gradient(ctc.loss)
    likelihood, slope = value_and_gradient(ctc.log_likelihood)
    assert np.isinf(value[3:]).all()
    np.testing.assert_allclose(value[:3], -likelihood[:3], rtol=3e-5)
    np.testing.assert_allclose(gradient, -slope, atol=1e-4)


def test_gradient_by_differences():
    log_probs = random_log_probs((1, 4, 3), seed=5).astype(np.float64)
    labels, length, frames = np.array([[0, 0]]), [2], [4]
    variable = tf.constant(log_probs, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = ctc.log_likelihood(variable, labels, frames, length)
    gradient = tape.gradient(value, variable).numpy()
    for place in np.ndindex(1, 4, 3):
        moved = []
        for step in (-1e-3, 1e-3):
            other = log_probs.copy()
            other[place] += step
            moved.append(enumerate_texts(other[0])[(0, 0)])
        assert gradient[place] == pytest.approx((moved[1] - moved[0]) / 2e-3, abs=1e-4)


def test_padding_changes_nothing(batch):
    log_probs, labels, frames, length = batch
    rng = np.random.default_rng(1)
    junk = np.concatenate([log_probs, random_log_probs((5, 7, 4), seed=9)], axis=1)
    for row in range(5):
        junk[row, frames[row] :] = rng.normal(size=junk[row, frames[row] :].shape)
    longer = np.concatenate([labels, rng.integers(0, 3, (5, 4)).astype(np.int32)], axis=1)
    for row in range(5):
        longer[row, length[row] :] = rng.integers(0, 3, longer.shape[1] - length[row])
    for function in (ctc.loss, ctc.log_likelihood):
        np.testing.assert_allclose(
            function(junk, longer, frames, length), function(*batch), atol=1e-5
        )
    for search in (ctc.greedy, lambda p, f: ctc.beam_search(p, f, width=4)):
        for a, b in zip(search(junk, frames), search(log_probs, frames), strict=True):
            np.testing.assert_allclose(a[:, :, :5] if len(a.shape) == 3 else a, b, atol=1e-5)
    a, b = ctc.align(junk, longer, frames, length), ctc.align(*batch)
    np.testing.assert_array_equal(a[:, :5], b)
    assert (a.numpy()[:, 5:] == -1).all()


def test_labels_that_cannot_fit():
    labels, length = pad([(0, 1, 2), (1, 1), (0, 1), ()])
    frames = np.array([2, 2, 2, 0])
    assert ctc.frames_needed(labels, length).numpy().tolist() == [3, 3, 2, 0]
    logits = tf.constant(np.random.default_rng(0).normal(size=(4, 2, 4)), tf.float32)
    for function in (ctc.loss, lambda *a: -ctc.log_likelihood(*a)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = function(tf.nn.log_softmax(logits), labels, frames, length)
        gradient = tape.gradient(value, logits).numpy()
        assert (value.numpy()[:2] > 1e29).all()
        assert np.isfinite(value.numpy()[2]) and value.numpy()[3] == 0.0
        assert np.isfinite(gradient).all() and not gradient[[0, 1, 3]].any()
        assert gradient[2].any()


def test_frames_needed_ignores_padding():
    assert ctc.frames_needed([[3, 3, 5], [1, 2, 2]], [3, 2]).numpy().tolist() == [4, 2]


# --- alignment ------------------------------------------------------------------------------------


def test_alignment_is_the_best_path(batch):
    log_probs, labels, frames, length = batch
    places = ctc.align(log_probs, labels, frames, length).numpy()
    for row, label in enumerate(LABELS):
        time = frames[row]
        scores = {
            path: sum(log_probs[row, t, s] for t, s in enumerate(path))
            for path in itertools.product(range(4), repeat=time)
            if read(path, 3) == label
        }
        best = max(scores, key=scores.get)
        symbols = [label[place] if place >= 0 else 3 for place in places[row, :time]]
        assert tuple(symbols) == best
        assert sorted(set(places[row, :time]) - {-1}) == list(range(len(label)))


# --- search ---------------------------------------------------------------------------------------


def texts_of(hypotheses, row):
    """Return the hypotheses of a row, without empty slots."""
    return [
        (tuple(tokens[:n]), probability, score)
        for tokens, n, probability, score in zip(
            *(np.asarray(value)[row] for value in hypotheses), strict=True
        )
        if score > ctc.LOW / 2
    ]


def test_greedy_decodes_the_best_path(batch):
    log_probs, _, frames, _ = batch
    hypotheses = ctc.greedy(log_probs, frames)
    for row in range(5):
        path = log_probs[row, : frames[row]].argmax(axis=1)
        ((text, _, score),) = texts_of(hypotheses, row)
        assert text == read(path, 3)
        assert score == pytest.approx(log_probs[row, : frames[row]].max(axis=1).sum(), abs=1e-5)
    assert (hypotheses.tokens.numpy()[:, 0][np.arange(5) >= hypotheses.length.numpy()] == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_wide_beam_finds_every_text_by_enumeration(seed):
    """A beam that keeps all prefixes has exact probabilities, in order."""
    frames = np.array([4, 3, 0])
    log_probs = random_log_probs((3, 4, 3), seed=seed)
    hypotheses = ctc.beam_search(log_probs, frames, width=40)
    for row in range(3):
        truth = enumerate_texts(log_probs[row, : frames[row]])
        texts = texts_of(hypotheses, row)
        assert {text for text, _, _ in texts} == set(truth)
        for text, probability, score in texts:
            assert probability == pytest.approx(truth[text], abs=1e-4)
            assert score == pytest.approx(probability, abs=1e-5)
        assert [s for _, _, s in texts] == sorted((s for _, _, s in texts), reverse=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.7, 0.0), (1.5, 0.4)])
def test_shallow_fusion_by_enumeration(seed, weight, bonus):
    log_probs = random_log_probs((2, 4, 3), seed=10 + seed)
    model = ctc.Ngram(TRANSCRIPTS, symbols=2, order=3)
    counted = Counted(TRANSCRIPTS, 2, 3)
    hypotheses = ctc.beam_search(
        log_probs, [4, 2], width=40, language_model=model, weight=weight, bonus=bonus
    )
    for row, time in enumerate((4, 2)):
        truth = {
            text: value + weight * counted.log_probability(text) + bonus * len(text)
            for text, value in enumerate_texts(log_probs[row, :time]).items()
        }
        texts = texts_of(hypotheses, row)
        assert {text for text, _, _ in texts} == set(truth)
        for text, _, score in texts:
            assert score == pytest.approx(truth[text], abs=1e-4)
        assert texts[0][0] == max(truth, key=truth.get)


def test_narrow_beam_beats_greedy_and_bounds_the_truth():
    log_probs = random_log_probs((8, 30, 6), seed=2, sharp=1.0)
    frames = np.full(8, 30)
    best_path = ctc.greedy(log_probs, frames)
    exact = ctc.log_likelihood(
        log_probs, tf.maximum(best_path.tokens[:, 0], 0), frames, best_path.length[:, 0]
    )
    narrow = ctc.beam_search(log_probs, frames, width=4)
    wide = ctc.beam_search(log_probs, frames, width=64)
    again = ctc.log_likelihood(
        log_probs, tf.maximum(wide.tokens[:, 0], 0), frames, wide.length[:, 0]
    )
    assert (again >= exact - 1e-4).numpy().all()
    assert (wide.log_probability[:, 0] <= again + 1e-3).numpy().all()
    assert (wide.log_probability[:, 0] >= narrow.log_probability[:, 0] - 1e-3).numpy().all()


def test_frames_that_are_surely_blank_change_no_search():
    log_probs = random_log_probs((6, 40, 4), seed=5)
    rng = np.random.default_rng(5)
    blank = np.log([1e-9, 1e-9, 1e-9, 1.0])
    log_probs[rng.uniform(size=(6, 40)) < 0.7] = blank
    log_probs[3] = blank  # nothing is said
    log_probs[4, :, 0], log_probs[4, :, 3] = 0.0, -30.0  # no blank at all
    frames = np.array([40, 33, 1, 40, 40, 0])
    ngram = ctc.Ngram(TRANSCRIPTS, symbols=3, order=3)
    less, count, removed = ctc.skip_blanks(log_probs, frames)
    assert less.shape[1] == max(count) == count[4] == 40 and count[0] < 28
    assert count[2:].numpy().tolist() == [1, 1, 40, 0]
    options = {"width": 8, "language_model": ngram, "weight": 0.4, "bonus": 0.2}
    whole, short = (
        ctc.beam_search(log_probs, frames, **options),
        ctc.beam_search(less, count, **options),
    )
    best, found = ([texts_of(search, row)[0][0] for row in range(6)] for search in (whole, short))
    assert found == best and len(best[0]) > 3
    np.testing.assert_allclose(
        short.log_probability[:, 0] + removed, whole.log_probability[:, 0], atol=1e-3
    )


def test_a_run_of_blanks_still_separates_equal_symbols():
    log_probs = np.log(np.full((1, 5, 2), [1e-6, 1.0 - 1e-6]))
    log_probs[0, [0, 4]] = np.log([1.0 - 1e-6, 1e-6])
    less, count, _ = ctc.skip_blanks(log_probs, [5])
    assert int(count[0]) == 3
    assert ctc.beam_search(less, count, width=4).length[0, 0] == 2


def test_search_compiles_and_is_saved(tmp_path):
    """Results are equal eagerly, by XLA with static shapes, and from a SavedModel."""
    log_probs = random_log_probs((3, 12, 4), seed=7)
    frames = np.array([12, 7, 9], np.int32)
    model = ctc.Ngram([(0, 1, 2), (2, 1)], symbols=3, order=3)

    def search(log_probs, frames):
        return ctc.beam_search(log_probs, frames, width=5, language_model=model)._asdict()

    expected = search(log_probs, frames)
    compile_search = tf.function(search, jit_compile=True)
    compiled = compile_search(tf.constant(log_probs), tf.constant(frames))
    module = tf.Module()
    module.model = model
    module.search = tf.function(
        search,
        input_signature=[
            tf.TensorSpec([None, None, 4], tf.float32, name="log_probs"),
            tf.TensorSpec([None], tf.int32, name="frames"),
        ],
    )
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path))
    loaded = served.search(log_probs, frames)
    for name, value in expected.items():
        np.testing.assert_allclose(loaded[name], value, atol=1e-5)
        np.testing.assert_allclose(compiled[name], value, atol=1e-4)


@pytest.mark.parametrize("symbols", [9, 200])
def test_search_with_sparse_tables_and_many_symbols(symbols):
    """Of 200 symbols the 128 most likely ones of a frame are tried, which hold all probability."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 10, symbols + 1)) * 2.0
    logits[:, :, 100:-1] -= 30.0
    log_probs = tf.nn.log_softmax(tf.constant(logits, tf.float32))
    texts = rng.integers(0, min(symbols, 100), (50, 6))
    models = [ctc.Ngram(texts, symbols=symbols, order=3, max_dense=most) for most in (10**6, 0)]
    one, other = (
        ctc.beam_search(log_probs, [10, 7, 4], width=6, language_model=model, weight=0.5)
        for model in models
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-4)
    wide = ctc.beam_search(log_probs, [10, 7, 4], width=6)
    for row, text in enumerate(wide.tokens[:, 0].numpy()):
        label = text[text >= 0][None]
        exact = ctc.log_likelihood(log_probs[row : row + 1], label, [[10, 7, 4][row]], [label.size])
        assert float(wide.log_probability[row, 0]) <= float(exact[0]) + 1e-3
