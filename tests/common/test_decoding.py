"""Decoders against enumeration, NumPy, published test vectors, and each other."""

import functools
import itertools
from collections import Counter

from common import decoding

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

SYMBOLS, END, LONGEST = 4, 3, 3


@pytest.fixture(name="table", params=range(4))
def make_table(request):
    """Return log P(next symbol | history), by a code of the history; row 0 is the empty one."""
    scores = np.random.default_rng(request.param).normal(0.0, 1.5, (SYMBOLS**4, SYMBOLS))
    return tf.nn.log_softmax(tf.constant(scores, tf.float32))


def history_step(table):
    """Return the step of a model whose next symbol depends on all symbols so far."""

    def step(code, token):
        code = code * SYMBOLS + token
        return code, tf.gather(table, code)

    return step


def begin(rows=1):
    return tf.zeros(rows, tf.int32), tf.zeros(rows, tf.int32)


def enumerated(table, longest=LONGEST, alpha=0.0):
    """Return every sequence with its score, best first; `longest` symbols force the end."""
    table = table.numpy()
    sequences = []
    for length in range(longest + 1):
        for tokens in itertools.product(range(END), repeat=length):
            code, total = 0, 0.0
            for token in tokens:
                total += table[code, token]
                code = code * SYMBOLS + token
            total += table[code, END]
            sequences.append((total / ((6.0 + length) / 6.0) ** alpha, tokens))
    return sorted(sequences, reverse=True)


def sequence_at(decoded, *index):
    return tuple(decoded.tokens.numpy()[index][: decoded.length.numpy()[index]].tolist())


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_wide_beam_finds_every_sequence_in_order(table, alpha):
    expected = enumerated(table, alpha=alpha)
    decoded = decoding.beam_search(
        history_step(table), *begin(), end=END, max_length=LONGEST, beam=len(expected), alpha=alpha
    )
    assert [sequence_at(decoded, 0, n) for n in range(len(expected))] == [t for _, t in expected]
    np.testing.assert_allclose(decoded.score[0], [s for s, _ in expected], rtol=1e-5)


def test_beam_of_one_is_greedy(table):
    step = history_step(table)
    greedy = decoding.greedy(step, *begin(), end=END, max_length=LONGEST)
    beam = decoding.beam_search(step, *begin(), end=END, max_length=LONGEST, beam=1, alpha=1.0)
    assert sequence_at(beam, 0, 0) == sequence_at(greedy, 0)
    normal = greedy.score / ((6.0 + float(greedy.length[0])) / 6.0)
    np.testing.assert_allclose(beam.score[:, 0], normal, rtol=1e-6)


def test_greedy_follows_the_likeliest_symbol(table):
    expected, code = [], 0
    while len(expected) < LONGEST and (token := int(np.argmax(table[code]))) != END:
        expected.append(token)
        code = code * SYMBOLS + token
    decoded = decoding.greedy(history_step(table), *begin(), end=END, max_length=LONGEST)
    assert sequence_at(decoded, 0) == tuple(expected)
    scores = {tokens: score for score, tokens in enumerated(table)}
    np.testing.assert_allclose(decoded.score[0], scores[tuple(expected)], rtol=1e-5)
    assert not np.any(decoded.tokens[0, len(expected) :])


def test_wider_beams_are_no_worse(table):
    best = enumerated(table)[0][0]
    scores = []
    for beam in (1, 2, 4, 8, 40):
        decoded = decoding.beam_search(
            history_step(table), *begin(), end=END, max_length=LONGEST, beam=beam
        )
        assert np.all(np.diff(decoded.score[0]) <= 0)
        scores.append(float(decoded.score[0, 0]))
    assert scores[-1] == pytest.approx(best, rel=1e-5)
    assert max(scores) <= best + 1e-5


def test_each_row_has_its_own_limit(table):
    limits = tf.constant([0, 1, 2, 9])
    decoded = decoding.beam_search(
        history_step(table), *begin(4), end=END, max_length=LONGEST, beam=40, limit=limits
    )
    for row, limit in enumerate([0, 1, 2, 3]):
        expected = enumerated(table, limit)
        assert sequence_at(decoded, row, 0) == expected[0][1]
        real = decoded.score[row] > decoding.IMPOSSIBLE
        assert np.count_nonzero(real) == len(expected)
    greedy = decoding.greedy(
        history_step(table), *begin(4), end=END, max_length=LONGEST, limit=limits
    )
    assert np.all(greedy.length <= [0, 1, 2, 3])


def peculiar_step(rows):
    """Return the step of a model whose rows prefer different symbols and end at different steps."""
    tables = np.random.default_rng(5).normal(0.0, 2.0, (rows, 30, 6)).astype(np.float32)

    def step(state, token):
        row, place = state
        at = tf.stack([row, place], axis=1)
        scores = tf.gather_nd(tables, at) + 0.1 * tf.cast(token[:, None] % 3, tf.float32)
        return (row, place + 1), tf.nn.log_softmax(scores)

    return step


@pytest.mark.parametrize("kind", ["greedy", "sample", "beam_search"])
def test_a_batch_equals_single_rows(kind):
    rows, step = 7, peculiar_step(7)
    seeds = tf.constant([[row, 3] for row in range(rows)])
    limits = tf.constant([20, 3, 20, 1, 12, 0, 20])

    def decode(chosen):
        chosen = tf.constant(chosen)
        more = {"sample": {"seed": tf.gather(seeds, chosen)}, "beam_search": {"beam": 3}}
        return getattr(decoding, kind)(
            step,
            (chosen, tf.zeros_like(chosen)),
            tf.zeros_like(chosen),
            end=5,
            max_length=20,
            limit=tf.gather(limits, chosen),
            **more.get(kind, {}),
        )

    together = decode(list(range(rows)))
    for row in range(rows):
        alone = decode([row])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[row], other[0], rtol=1e-6)


def settings_of(kind):
    return {
        "sample": {"seed": tf.constant([[1, 2], [3, 4]]), "temperature": 0.9, "top_p": 0.9},
        "beam_search": {"beam": 4, "alpha": 0.6},
    }.get(kind, {})


def decode_table(kind, table, code, start):
    step = history_step(table)
    decode = getattr(decoding, kind)
    return decode(step, code, start, end=END, max_length=LONGEST, **settings_of(kind))


@pytest.fixture(scope="module")
def functions():
    """For each kind a traced and a compiled function, which all tables share."""
    ids = tf.TensorSpec([None], tf.int32)
    specs = [tf.TensorSpec([SYMBOLS**4, SYMBOLS]), ids, ids]
    kinds = ("greedy", "sample", "beam_search")
    decoders = {kind: functools.partial(decode_table, kind) for kind in kinds}
    return {
        kind: (tf.function(decode, input_signature=specs), tf.function(decode, jit_compile=True))
        for kind, decode in decoders.items()
    }


@pytest.mark.parametrize("kind", ["greedy", "sample", "beam_search"])
def test_compiled_and_traced_equal_eager(kind, table, functions):
    expected = decode_table(kind, table, *begin(2))
    for function in functions[kind]:
        for one, other in zip(function(table, *begin(2)), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_row_of_nan_does_not_affect_the_others(table):
    def step(code, token):
        code, scores = history_step(table)(code, token)
        return code, tf.where(tf.constant([[False], [True]])[: tf.shape(token)[0]], np.nan, scores)

    def tiled(code, token):
        code, scores = history_step(table)(code, token)
        return code, tf.where(tf.repeat(tf.constant([[False], [True]]), 3, 0), np.nan, scores)

    good = decoding.greedy(history_step(table), *begin(1), end=END, max_length=LONGEST)
    both = decoding.greedy(step, *begin(2), end=END, max_length=LONGEST)
    assert sequence_at(both, 0) == sequence_at(good, 0)
    good = decoding.beam_search(history_step(table), *begin(1), end=END, max_length=3, beam=3)
    both = decoding.beam_search(tiled, *begin(2), end=END, max_length=3, beam=3)
    assert sequence_at(both, 0, 0) == sequence_at(good, 0, 0)
    assert np.all(np.isfinite(both.score))


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # The test vectors of Threefry-2x32-20 in Random123 (Salmon et al. 2011).
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((-1, -1), (-1, -1), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3 - 2**32), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_equals_published_test_vectors(key, counter, expected):
    words = [tf.bitcast(tf.constant([[x]], tf.int32), tf.uint32) for x in (*key, *counter)]
    words = decoding._threefry(words[:2], words[2:])
    assert [int(word[0, 0]) for word in words] == list(expected)


def test_uniform_numbers_are_uniform_and_depend_on_seed_and_place():
    seed = tf.constant([[7, 1], [7, 2]])
    numbers = decoding.uniform(seed, 3, 20_001).numpy()
    assert numbers.shape == (2, 20_001)
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    for row in numbers:
        assert scipy.stats.kstest(row, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers)[0, 1]) < 0.03
    again = decoding.uniform(seed[1:], 3, 20_001).numpy()
    np.testing.assert_array_equal(again[0], numbers[1])
    other = decoding.uniform(seed, tf.constant([3, 4]), 20_001).numpy()
    np.testing.assert_array_equal(other[0], numbers[0])
    assert abs(np.corrcoef(other[1], numbers[1])[0, 1]) < 0.03


def test_samples_follow_the_distribution(table):
    """Chi-squared test over whole sequences."""
    count = 20_000
    seeds = tf.stack([tf.range(count), tf.fill([count], 11)], axis=1)
    decoded = decoding.sample(
        history_step(table), *begin(count), seed=seeds, end=END, max_length=LONGEST
    )
    expected = {tokens: np.exp(float(score)) for score, tokens in enumerated(table)}
    # The end is forced after LONGEST symbols, so it has probability 1 there.
    for tokens in expected:
        if len(tokens) == LONGEST:
            code = int(np.polyval(tokens, SYMBOLS))
            expected[tokens] /= np.exp(float(table[code, END]))
    rows = zip(decoded.tokens.numpy().tolist(), decoded.length.numpy(), strict=True)
    drawn = Counter(tuple(tokens[:length]) for tokens, length in rows)
    counts = np.array([drawn[tokens] for tokens in expected])
    ideal = np.array(list(expected.values())) * count
    assert ideal.sum() == pytest.approx(count, rel=1e-4) and counts.sum() == count
    rare = ideal < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        ideal = np.append(ideal[~rare], ideal[rare].sum())
    assert scipy.stats.chisquare(counts, ideal / ideal.sum() * counts.sum()).pvalue > 1e-4


def test_one_seed_gives_one_sequence(table):
    def sequences(seed):
        return decoding.sample(
            history_step(table),
            *begin(50),
            seed=tf.stack([tf.range(50), tf.fill([50], seed)], 1),
            end=None,
            max_length=LONGEST,
        ).tokens.numpy()

    np.testing.assert_array_equal(sequences(1), sequences(1))
    assert np.any(sequences(1) != sequences(2))


def test_temperature_zero_and_one_symbol_are_greedy(table):
    step, seed = history_step(table), tf.constant([[1, 1]])
    greedy = decoding.greedy(step, *begin(), end=END, max_length=LONGEST)
    for setting in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}):
        decoded = decoding.sample(step, *begin(), seed=seed, end=END, max_length=LONGEST, **setting)
        assert sequence_at(decoded, 0) == sequence_at(greedy, 0)


def test_filters_equal_numpy():
    rng = np.random.default_rng(0)
    scores = rng.normal(0.0, 2.0, (5, 9)).astype(np.float32)
    temperature = np.array([0.5, 1.0, 2.0, 1e4, 0.0], np.float32)
    top_k = np.array([0, 3, 5, 0, 0])
    top_p = np.array([0.9, 1.0, 0.5, 0.7, 1.0], np.float32)
    filtered = np.exp(
        decoding.filter_log_probabilities(
            tf.constant(scores), temperature=temperature, top_k=top_k, top_p=top_p
        )
    )
    for row in range(5):
        scaled = scores[row].astype(float) / max(temperature[row], 1e-6)
        probabilities = np.exp(scaled - scaled.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities)
        within = np.cumsum(probabilities[order]) - probabilities[order] < top_p[row]
        within[0] = True
        if top_k[row]:
            within[top_k[row] :] = False
        if temperature[row] == 0:
            within[1:] = False
        expected = np.zeros(9)
        expected[order[within]] = probabilities[order[within]] / probabilities[order[within]].sum()
        np.testing.assert_allclose(filtered[row], expected, atol=1e-5)


def test_draw_never_returns_an_impossible_symbol():
    scores = tf.constant([[decoding.IMPOSSIBLE, 0.0, decoding.IMPOSSIBLE, 0.0, -1e9]] * 4)
    edges = tf.constant([0.0, 0.4999999, 0.5, 1.0 - 2.0**-23])
    assert decoding.draw(scores, edges).numpy().tolist() == [1, 1, 3, 3]


def test_loop_accepts_nested_structures_and_any_number_of_steps():
    def step(state, previous, place):
        return state + 1, {"a": previous["a"] * 2.0, "b": previous["b"] + place}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def run(a, b, steps):
        return decoding.loop(step, tf.constant(0), {"a": a, "b": b}, steps=steps)

    state, outputs = run(tf.constant([[1.0, 3.0]]), tf.constant([10]), 3)
    assert int(state) == 3
    assert outputs["a"].numpy().tolist() == [[[2.0, 6.0], [4.0, 12.0], [8.0, 24.0]]]
    assert outputs["b"].numpy().tolist() == [[10, 11, 13]]
    state, outputs = run(tf.constant([[1.0, 3.0]]), tf.constant([10]), 0)
    assert outputs["a"].shape == (1, 0, 2)
    assert outputs["b"].shape == (1, 0)
