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
    beam = decoding.beam_search(step, *begin(), end=END, max_length=LONGEST, beam=1)
    assert sequence_at(beam, 0, 0) == sequence_at(greedy, 0)
    np.testing.assert_allclose(beam.score[:, 0], greedy.score, rtol=1e-6)


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


# --- The end of a beam search ---------------------------------------------------------------------


def test_the_search_goes_on_while_an_unfinished_hypothesis_may_win():
    """Two hypotheses are finished after two symbols; a third one, still unfinished, is the best."""
    probabilities = np.full((SYMBOLS**4, SYMBOLS), 0.25)
    probabilities[0] = [0.1, 0.5, 0.1, 0.3]  # after nothing; the last symbol is the end
    probabilities[1] = [0.005, 0.6, 0.005, 0.39]  # after 1
    probabilities[5] = [0.01, 0.01, 0.01, 0.97]  # after 1, 1
    table = tf.constant(np.log(probabilities), tf.float32)
    score, tokens = enumerated(table, alpha=1.0)[0]
    decoded = decoding.beam_search(
        history_step(table), *begin(), end=END, max_length=LONGEST, beam=2, best=1, alpha=1.0
    )
    assert sequence_at(decoded, 0, 0) == tokens == (1, 1)
    np.testing.assert_allclose(decoded.score[0, 0], score, rtol=1e-5)


def search_to_the_limit(table, beam, alpha):
    """Return all sequences that a beam search finishes if it never stops early, best first."""
    table = table.numpy()
    alive, finished = [(0.0, (), 0)], []
    for _ in range(LONGEST + 1):
        extensions = sorted(
            (
                (score + table[code, token], tokens, code, token)
                for score, tokens, code in alive
                for token in range(SYMBOLS)
                if len(tokens) < LONGEST or token == END
            ),
            reverse=True,
        )
        penalty = ((6.0 + len(alive[0][1])) / 6.0) ** alpha
        finished += [(s / penalty, t) for s, t, _, token in extensions[:beam] if token == END]
        going = [(s, (*t, x), code * SYMBOLS + x) for s, t, code, x in extensions if x != END]
        alive = going[:beam]
        if not alive:
            break
    return sorted(finished, reverse=True)


@pytest.mark.parametrize("best", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_end_of_the_search_loses_no_better_sequence(best, alpha):
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(0.0, 1.0, (SYMBOLS**4, SYMBOLS))
        table = tf.nn.log_softmax(tf.constant(scores, tf.float32))
        decoded = decoding.beam_search(
            *(history_step(table), *begin()),
            **{"end": END, "max_length": LONGEST, "beam": 3, "best": best, "alpha": alpha},
        )
        expected = search_to_the_limit(table, 3, alpha)[:best]
        assert [sequence_at(decoded, 0, k) for k in range(len(expected))] == [
            tokens for _, tokens in expected
        ]


@pytest.mark.parametrize("rows", [1, 9])
def test_complete_rows_leave_a_batch_of_any_size_and_change_nothing(rows):
    generator = np.random.default_rng(2)
    tables = generator.normal(0.0, 2.0, (rows, 30, 6)) - [0, 0, 0, 0, 0, 4]
    tables = tf.constant(tables, tf.float32)
    limits = tf.constant(([20, 3, 20, 1, 12, 0, 20, 4, 9] * 2)[:rows])
    seen = []

    def step(place, token, context):
        beam = tf.size(token) // tf.size(context["row"])
        seen.append(context["row"].shape[0])
        scores = tf.gather(tf.repeat(context["table"], beam, 0), place, batch_dims=1)
        # Any constant may be added to the scores of a row.
        return place + 1, scores + 0.1 * tf.cast(token[:, None] % 3, tf.float32) * [
            0,
            1,
            2,
            0,
            1,
            0,
        ]

    def search(tables, limits):
        start = tf.zeros_like(limits)
        context = {"table": tables, "row": tf.range(tf.size(limits))}
        options = {"end": 5, "max_length": 20, "beam": 3, "alpha": 0.6, "limit": limits}
        return decoding.beam_search(step, start, start, context=context, **options)

    specs = [tf.TensorSpec([None, 30, 6]), tf.TensorSpec([None], tf.int32)]
    shrinking = tf.function(search, input_signature=specs)(tables, limits)
    assert seen == [None]
    for one, other in zip(shrinking, search(tables, limits), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert rows == 1 or len(set(shrinking.length[:, 0].numpy())) > 3


def test_scores_need_not_be_normalized(table):
    def shifted(code, token):
        code, scores = history_step(table)(code, token)
        return code, scores + 3.0 * tf.cast(code % 5, tf.float32)[:, None]

    seed = tf.constant([[4, 2]])
    for kind, options in (("greedy", {}), ("sample", {"seed": seed}), ("beam_search", {"beam": 4})):
        one, other = (
            getattr(decoding, kind)(step, *begin(), end=END, max_length=LONGEST, **options)
            for step in (history_step(table), shifted)
        )
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_allclose(one.score, other.score, rtol=1e-5, atol=1e-5)
