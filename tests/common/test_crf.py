"""The CRF against enumeration of all paths, finite differences and automatic differentiation."""

import itertools
import subprocess
import sys

from common import crf, rnn_kernels
from common.crf import CRF, LOW, Constraints, Scores
from tests.common.test_rnn_kernels import is_compiled

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

# A ring with a shortcut: few transitions per state, so that neighbours are gathered.
RING = np.eye(6, dtype=bool) | np.eye(6, k=1, dtype=bool)
RING[5, 0] = RING[3, 0] = True
FEW = Constraints(RING, start=[1, 1, 0, 0, 0, 1], end=[1, 0, 1, 1, 1, 0])
MANY = Constraints([[1, 1, 1], [0, 1, 1], [1, 0, 1]], start=[1, 0, 1])
ALL = Constraints.none(3)
tables = pytest.mark.parametrize("constraints", [ALL, MANY, FEW], ids=["all", "many", "few"])
forms = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])


def problem(states, batch=4, time=5, seed=0, scale=2.0):
    random = np.random.default_rng(seed)
    sizes = ((states, states), (states,), (states,))
    emissions = random.normal(scale=scale, size=(batch, time, states)).astype(np.float32)
    scores = Scores(*(random.normal(scale=scale, size=size).astype(np.float32) for size in sizes))
    length = np.array([time, 3, 1, 0][:batch] + [time] * max(0, batch - 4), np.int32)
    return emissions, length, scores


def is_valid(path, constraints):
    return (
        constraints.start[path[0]]
        and constraints.end[path[-1]]
        and all(constraints.transitions[a, b] for a, b in itertools.pairwise(path))
    )


def score_of(path, emissions, scores):
    path = np.array(path)
    return float(
        scores.start[path[0]].astype(np.float64)
        + scores.end[path[-1]]
        + scores.transitions[path[:-1], path[1:]].sum(dtype=np.float64)
        + emissions[np.arange(len(path)), path].sum(dtype=np.float64)
    )


def enumerate_row(emissions, length, scores, constraints):
    """Return log Z, marginals, the best path, its score, and the score of every valid path."""
    time, states = emissions.shape
    paths = [p for p in itertools.product(range(states), repeat=length) if is_valid(p, constraints)]
    values = np.array([score_of(path, emissions, scores) for path in paths])
    total = np.logaddexp.reduce(values)
    probabilities = np.zeros((time, states))
    for path, value in zip(paths, values, strict=True):
        probabilities[np.arange(length), path] += np.exp(value - total)
    best = int(values.argmax())
    return total, probabilities, paths[best], values[best], dict(zip(paths, values, strict=True))


def run(function, compiled):
    """Trace a function with compiled recursions or, as in an export, with plain ones."""
    traced = tf.function(function, autograph=False)
    if compiled:
        concrete = traced.get_concrete_function()
    else:
        with rnn_kernels.portable():
            concrete = traced.get_concrete_function()
    assert is_compiled(concrete) == compiled
    return concrete()


# --- against enumeration --------------------------------------------------------------------------


@forms
@tables
def test_sums_and_best_paths_equal_enumeration(constraints, compiled):
    emissions, length, scores = problem(constraints.states)
    arguments = emissions, length, scores, constraints

    def compute():
        return crf.log_normalizer(*arguments), crf.marginals(*arguments), *crf.viterbi(*arguments)

    total, probabilities, tags, best = (value.numpy() for value in run(compute, compiled))
    for row, count in enumerate(length):
        if not count:
            assert total[row] == 0 and best[row] == 0
            assert not probabilities[row].any() and not tags[row].any()
            continue
        expected = enumerate_row(emissions[row], count, scores, constraints)
        np.testing.assert_allclose(total[row], expected[0], rtol=1e-5)
        np.testing.assert_allclose(probabilities[row], expected[1], atol=1e-5)
        assert tags[row, :count].tolist() == list(expected[2]) and not tags[row, count:].any()
        np.testing.assert_allclose(best[row], expected[3], rtol=1e-5)


@tables
def test_every_path_has_its_probability(constraints):
    emissions, _, scores = problem(constraints.states, batch=1, time=4)
    *_, values = enumerate_row(emissions[0], 4, scores, constraints)
    paths = np.array(list(values))
    many = np.repeat(emissions, len(paths), axis=0)
    length = np.full(len(paths), 4)
    likelihood = crf.log_likelihood(many, paths, length, scores, constraints).numpy()
    np.testing.assert_allclose(np.exp(likelihood).sum(), 1.0, rtol=1e-5)
    expected = np.array(list(values.values())) - np.logaddexp.reduce(list(values.values()))
    np.testing.assert_allclose(likelihood, expected, rtol=1e-4, atol=1e-5)


def test_an_invalid_path_has_no_probability():
    emissions, _, scores = problem(6, batch=3, time=3)
    paths = [[0, 2, 3], [2, 3, 4], [0, 1, 1]]  # a jump, a wrong start, a wrong end
    likelihood = crf.log_likelihood(emissions, paths, [3, 3, 3], scores, FEW)
    assert (likelihood.numpy() <= LOW / 2).all() and np.isfinite(likelihood).all()


@forms
@tables
def test_sets_of_paths_equal_enumeration(constraints, compiled):
    emissions, length, scores = problem(constraints.states)
    random = np.random.default_rng(3)
    allowed = random.random(emissions.shape) < 0.6
    allowed[0], allowed[1] = True, allowed[1] | (random.random(allowed[1].shape) < 0.7)

    def compute():
        return crf.log_likelihood_of_set(emissions, allowed, length, scores, constraints)

    likelihood = run(compute, compiled).numpy()
    assert abs(likelihood[0]) < 1e-5 and likelihood[3] == 0
    for row in (1, 2):
        *_, values = enumerate_row(emissions[row], length[row], scores, constraints)
        steps = np.arange(length[row])
        inside = [v for path, v in values.items() if allowed[row, steps, path].all()]
        expected = np.logaddexp.reduce(inside) - np.logaddexp.reduce(list(values.values()))
        if inside:
            np.testing.assert_allclose(likelihood[row], expected, atol=1e-5)
        else:
            assert likelihood[row] <= LOW / 2


# --- gradients ------------------------------------------------------------------------------------


def naive_log_normalizer(emissions, length, scores):
    """Return log Z by the textbook recursion, for automatic differentiation."""
    totals = []
    for row, count in enumerate(length):
        alpha = scores.start + emissions[row, 0]
        for t in range(1, count):
            step = tf.reduce_logsumexp(alpha[:, None] + scores.transitions, axis=0)
            alpha = step + emissions[row, t]
        totals.append(tf.reduce_logsumexp(alpha + scores.end) if count else 0.0 * alpha[0])
    return tf.stack(totals)


@forms
@tables
def test_gradients_equal_automatic_differentiation(constraints, compiled):
    emissions, length, scores = problem(constraints.states)
    weight = tf.constant([1.0, -0.5, 2.0, 3.0])

    def gradients(function):
        inputs = [tf.constant(emissions), *map(tf.constant, scores)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(weight * function(inputs[0], Scores(*inputs[1:])))
        return tape.gradient(loss, inputs)

    computed = run(
        lambda: gradients(lambda e, s: crf.log_normalizer(e, length, s, constraints)), compiled
    )
    expected = gradients(lambda e, s: naive_log_normalizer(e, length, constraints.apply(s)))
    for a, b in zip(computed, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@tables
def test_gradients_equal_finite_differences(constraints):
    emissions, length, scores = problem(constraints.states, scale=1.0)
    emissions, length = emissions[:2], length[:2]
    tags = np.array(
        [list(enumerate_row(emissions[r], n, scores, constraints)[2]) + [0] * (5 - n)
         for r, n in enumerate(length)]
    )  # fmt: skip

    def loss(emissions, *scores):
        likelihood = crf.log_likelihood(emissions, tags, length, Scores(*scores), constraints)
        return tf.reduce_sum(likelihood)

    theory, numeric = tf.test.compute_gradient(loss, [emissions, *scores], delta=1e-2)
    for a, b in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


def test_a_function_traced_without_a_tape_has_a_gradient():
    """Such a function stores no forward scores, and recomputes them for the gradient."""
    emissions, length, scores = problem(3)
    compute = tf.function(lambda e: crf.log_normalizer(e, length, scores))
    compute(emissions)
    inputs = tf.constant(emissions)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(compute(inputs))
    np.testing.assert_allclose(
        tape.gradient(total, inputs), crf.marginals(emissions, length, scores), atol=1e-6
    )


# --- properties for any input ---------------------------------------------------------------------


@st.composite
def chains(draw):
    states, batch, time = (draw(st.integers(1, n)) for n in (7, 4, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    table = random.random((states, states)) < draw(st.sampled_from([0.2, 0.5, 1.0]))
    np.fill_diagonal(table, True)  # every length has a path
    ends = random.random(states) < 0.7
    ends[random.integers(states)] = True
    constraints = Constraints(table, start=ends, end=ends)
    scale = draw(st.sampled_from([0.1, 3.0, 200.0]))
    emissions, _, scores = problem(states, batch, time, int(random.integers(1e6)), scale)
    return emissions, random.integers(0, time + 1, batch), scores, constraints


def check_decode(chain):
    emissions, length, scores, constraints = chain
    tags, best = crf.viterbi(*chain)
    for row, count in enumerate(length):
        if count:
            path = tags.numpy()[row, :count]
            assert is_valid(path, constraints)
            expected = score_of(path, emissions[row], scores)
            np.testing.assert_allclose(best[row], expected, rtol=1e-4, atol=1e-3)
    likely = crf.log_likelihood(emissions, tags, length, scores, constraints).numpy()
    assert (likely <= 1e-3 + 1e-5 * np.abs(best)).all()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(chains())
def test_no_decode_breaks_a_constraint(chain):
    check_decode(chain)


@pytest.mark.slow  # the same test on more chains
@settings(deadline=None, max_examples=60, derandomize=True)
@given(chains())
def test_no_decode_of_many_chains_breaks_a_constraint(chain):
    check_decode(chain)


def check_padding(chain, more):
    emissions, length, scores, constraints = chain
    junk = np.full((len(emissions), more, emissions.shape[2]), np.nan, np.float32)
    padded = np.concatenate([emissions, junk], axis=1)
    for row, count in enumerate(length):
        padded[row, count:] = np.nan
    longer = padded, length, scores, constraints
    np.testing.assert_allclose(crf.log_normalizer(*longer), crf.log_normalizer(*chain), rtol=1e-6)
    np.testing.assert_array_equal(crf.viterbi(*longer)[0][:, :-more], crf.viterbi(*chain)[0])
    probabilities = crf.marginals(*longer).numpy()
    np.testing.assert_allclose(probabilities[:, :-more], crf.marginals(*chain), atol=1e-6)
    assert not probabilities[:, -more:].any()
    np.testing.assert_allclose(probabilities.sum(axis=(1, 2)), length, atol=1e-4)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(chains(), st.integers(1, 5))
def test_padding_changes_nothing(chain, more):
    check_padding(chain, more)


@pytest.mark.slow  # the same test on more chains
@settings(deadline=None, max_examples=40, derandomize=True)
@given(chains(), st.integers(1, 5))
def test_padding_of_many_chains_changes_nothing(chain, more):
    check_padding(chain, more)


def test_nothing_underflows_if_the_likely_states_have_no_continuation():
    """Only a state that was e^-3000 times as likely as the others remains: its marginal is 1."""
    constraints = Constraints(np.eye(3))
    emissions = np.zeros((1, 1001, 3), np.float32)
    emissions[0, :-1, 0] = -3.0
    emissions[0, -1, 1:] = LOW
    scores = Scores(np.zeros((3, 3)), np.zeros(3), np.zeros(3))
    arguments = emissions, [1001], scores, constraints
    total, probabilities = run(
        lambda: (crf.log_normalizer(*arguments), crf.marginals(*arguments)), False
    )
    np.testing.assert_allclose(total, [-3000.0], rtol=1e-6)
    np.testing.assert_array_equal(probabilities[0, :, 0], 1)


def test_rounding_does_not_grow_with_the_length():
    random = np.random.default_rng(0)
    emissions = random.normal(scale=3, size=(2, 5000, 4)).astype(np.float32)
    scores = Scores(*(random.normal(size=n).astype(np.float32) for n in ((4, 4), 4, 4)))
    arguments = tf.constant(emissions), tf.constant([5000, 4000]), scores
    total, probabilities = run(
        lambda: (crf.log_normalizer(*arguments), crf.marginals(*arguments)), True
    )
    np.testing.assert_allclose(np.sum(probabilities, axis=2)[0], 1.0, atol=1e-6)
    alpha = scores.start.astype(np.float64) + emissions[0, 0]
    for row in emissions[0, 1:]:
        alpha = np.logaddexp.reduce(alpha[:, None] + scores.transitions, axis=0) + row
    expected = np.logaddexp.reduce(alpha + scores.end)
    np.testing.assert_allclose(total[0], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3)])
def test_no_rows_and_no_steps_are_accepted(shape):
    scores = problem(3)[2]
    emissions, length = np.zeros(shape, np.float32), np.zeros(shape[0], np.int32)
    assert crf.log_normalizer(emissions, length, scores).numpy().tolist() == [0.0] * shape[0]
    assert crf.log_likelihood(emissions, emissions[..., 0], length, scores).shape == shape[:1]
    assert crf.marginals(emissions, length, scores).shape == shape
    assert crf.viterbi(emissions, length, scores)[0].shape == shape[:2]


@tables
def test_a_long_row_is_decoded_in_pieces(constraints):
    emissions, _, scores = problem(constraints.states, batch=2, time=11)
    length, inner = np.array([11, 8]), Constraints(constraints.transitions)
    last, total, pointers = crf.viterbi_forward(emissions[:, :4], [4, 4], scores, constraints)
    pieces = [pointers]
    for start, end in ((4, 5), (5, 11)):
        piece = tf.concat([(last - scores.start)[:, None], emissions[:, start:end]], axis=1)
        steps = np.clip(length - start, 0, end - start) + 1
        last, added, pointers = crf.viterbi_forward(piece, steps, scores, inner)
        total += added
        pieces.append(pointers[:, 1:])
    last += constraints.apply(scores).end
    state = tf.argmax(last, axis=-1, output_type=tf.int32)
    tags = crf.trace_back(tf.concat(pieces, axis=1), state, length, constraints)
    whole, best = crf.viterbi(emissions, length, scores, constraints)
    np.testing.assert_array_equal(tags, whole)
    np.testing.assert_allclose(total + tf.reduce_max(last, axis=-1), best, rtol=1e-5)


# --- the layer ------------------------------------------------------------------------------------


def make_model(policy="float32"):
    x = keras.Input((None, 4), name="x")
    length = keras.Input((), dtype="int32", name="length")
    emissions = keras.layers.Dense(6, dtype=policy)(x)
    layer = CRF(6, FEW.transitions, FEW.start, FEW.end, name="crf", dtype=policy)
    outputs = {"emissions": emissions, "tags": layer(emissions, length)}
    return keras.Model({"x": x, "length": length}, outputs)


def batch_of(model, seed=0):
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return {"x": random.normal(size=(3, 7, 4)).astype(np.float32), "length": np.array([7, 4, 0])}


def test_a_model_is_saved_and_loaded(tmp_path):
    model = make_model()
    batch = batch_of(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("crf").constraints == FEW
    for a, b in zip(loaded(batch).values(), model(batch).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model(batch)["tags"].dtype == tf.int32 and model.output["tags"].shape == (None, None)


def test_mixed_precision_keeps_scores_in_float32():
    model = make_model("mixed_bfloat16")
    outputs = model(batch_of(model))
    assert outputs["emissions"].dtype == tf.bfloat16
    layer = model.get_layer("crf")
    assert all(weight.dtype == "float32" for weight in layer.weights)
    length = np.array([7, 4, 0])
    likelihood = layer.log_likelihood(outputs["emissions"], outputs["tags"], length)
    assert likelihood.dtype == tf.float32 and (likelihood.numpy() <= 0).all() and likelihood[2] == 0
    emissions = tf.cast(outputs["emissions"], tf.float32)
    expected = crf.viterbi(emissions, length, layer.scores, FEW)[0]
    np.testing.assert_array_equal(outputs["tags"], expected)


def test_a_saved_model_decodes_without_keras(tmp_path):
    model = make_model()
    batch = batch_of(model)
    layer = model.get_layer("crf")
    specs = [tf.TensorSpec([None, None, 4], name="x"), tf.TensorSpec([None], tf.int32, "length")]

    @tf.function(input_signature=specs)
    def compute(x, length):
        outputs = model({"x": x, "length": length})
        return {
            "tags": outputs["tags"],
            "marginals": layer.marginals(outputs["emissions"], length),
            "log_z": layer.log_normalizer(outputs["emissions"], length),
        }

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    with rnn_kernels.portable():
        concrete = compute.get_concrete_function()
        assert not is_compiled(concrete)
        tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": concrete})
    np.savez(tmp_path / "batch.npz", **batch)
    script = (
        "import sys, numpy as np\n"
        "sys.modules.update(dict.fromkeys(('keras', 'common')))\n"
        "import tensorflow as tf\n"
        "batch = np.load(sys.argv[1] + '/batch.npz')\n"
        "compute = tf.saved_model.load(sys.argv[1] + '/m').signatures['serving_default']\n"
        "x, length = (tf.constant(batch[name]) for name in ('x', 'length'))\n"
        "outputs = compute(x=x, length=tf.cast(length, tf.int32))\n"
        "np.savez(sys.argv[1] + '/outputs.npz', **{k: v.numpy() for k, v in outputs.items()})\n"
    )
    line = [sys.executable, "-P", "-c", script, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    served = np.load(tmp_path / "outputs.npz")
    outputs = model(batch)
    np.testing.assert_array_equal(served["tags"], outputs["tags"])
    probabilities = layer.marginals(outputs["emissions"], batch["length"])
    np.testing.assert_allclose(served["marginals"], probabilities, atol=1e-6)
    total = layer.log_normalizer(outputs["emissions"], batch["length"])
    np.testing.assert_allclose(served["log_z"], total, rtol=1e-5)


@pytest.mark.thorough
def test_it_learns_transitions():
    """The input marks the first state only; the truth goes on with 0 1 2 0 1 2."""
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 3), name="x")
    layer = CRF(3)
    emissions = keras.layers.Dense(3)(x)
    tags = layer(emissions, keras.Input((), dtype="int32"))
    del tags
    model = keras.Model(x, emissions)
    first = np.arange(9) % 3
    truth = (first[:, None] + np.arange(8)) % 3
    inputs = np.zeros((9, 8, 3), np.float32)
    inputs[np.arange(9), 0, first] = 1.0
    length = np.full(9, 8)
    optimizer = keras.optimizers.Adam(0.2)
    variables = model.trainable_variables + layer.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer.log_likelihood(model(inputs), truth, length))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    losses = [float(step()) for _ in range(60)]
    assert losses[0] > 5 and losses[-1] < 0.1
    np.testing.assert_array_equal(layer.viterbi(model(inputs), length)[0], truth)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraints([[True, False]]), "square table"),
        (lambda: Constraints(np.eye(2), start=[0, 0]), "start must allow one or more of 2 states"),
        (lambda: CRF(0), "states must be a positive integer"),
        (lambda: CRF(3, np.eye(2)), "transitions must be a table of 3 states"),
        (lambda: CRF(3)(np.zeros((1, 2, 4)), np.array([2])), "emissions must have 3 states"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
