"""The private APIs of TensorFlow do what they are used for, and no other module uses any."""

import ast
import importlib
from pathlib import Path

from common import rnn

import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]
FOLDERS = ("common", "tasks", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULE = "common/tensorflow_internals.py"
# The second one runs in an environment of its own, in which the version of TensorFlow is pinned.
EXEMPT = (MODULE, "tests/tpu/lower.py")
# Not `tensorflow.core`: it holds the messages of TensorFlow's file formats.
PRIVATE_MODULES = ("tensorflow.python", "tensorflow.compiler", "tensorflow.lite", "keras.src")
LIBRARIES = ("tf", "keras")  # the names under which all files import them
STANDARD = ("_asdict", "_fields", "_fields_", "_replace", "_exit")  # of Python itself


TENSORFLOW = f"TensorFlow {tf.__version__}"


# --- What breaks if TensorFlow changes ------------------------------------------------------------


@pytest.fixture(scope="module")
def internals():
    try:
        return importlib.import_module("common.tensorflow_internals")
    except ImportError as error:
        pytest.fail(
            f"TensorFlow {tf.__version__} has moved a private name: mend {MODULE} ({error})"
        )


def notice(function, context):
    """Return the result of a function inside a traced function, outside and inside `context`."""
    results = []

    def body(k):
        results.append(function())
        return (k + 1,)

    def trace(**options):
        @tf.function(autograph=False, **options)
        def run(x):
            results.append(function())
            return tf.while_loop(
                lambda k: k < 2, lambda k: (results.append(function()), k + 1)[1:], [x]
            )

        run(tf.constant(0))

    trace()
    outside = set(results)
    results.clear()
    context(trace)
    return outside, set(results)


def record_a_tape(trace):
    with tf.GradientTape():
        trace()


def compile_by_xla(trace):
    trace(jit_compile=True)


def compile_an_outer_function(trace):
    tf.function(lambda: trace() or tf.constant(0), jit_compile=True)()


@pytest.mark.parametrize(
    ("name", "context", "purpose"),
    [
        ("is_recording", record_a_tape, "a training step would run each forward pass twice"),
        ("is_compiling", compile_by_xla, "XLA would compile functions inside a compiled one"),
        ("is_compiling", compile_an_outer_function, "as before, in nested functions"),
    ],
)
def test_contexts_are_noticed(internals, name, context, purpose):
    outside, inside = notice(getattr(internals, name), context)
    assert outside == {False}, f"{MODULE}: {name} is true where it should not be"
    assert inside == {True}, f"{MODULE}: {name} fails with {TENSORFLOW}: {purpose}"


def test_saving_is_noticed(internals, tmp_path):
    results = []
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([])])
    def run(x):
        results.append(internals.is_saving())
        return x

    module.run = run
    tf.saved_model.save(module, str(tmp_path))
    purpose = "tf.saved_model.save would write compiled scans, which TF Serving refuses"
    assert results == [True], f"{MODULE}: is_saving fails with {TENSORFLOW}: {purpose}"
    assert not internals.is_saving()


def test_tables_of_files_share_nothing(internals, tmp_path):
    path = tmp_path / "words.txt"
    tables = []
    for words in ("a\nb\n", "b\na\n"):
        path.write_text(words)
        initializer = internals.UnsharedFile(str(path))
        tables.append(tf.lookup.StaticHashTable(initializer, -1))
    found = [table.lookup(tf.constant(["a", "b", "c"])).numpy().tolist() for table in tables]
    expected = [[0, 1, -1], [1, 0, -1]]
    assert found == expected, f"{MODULE}: UnsharedFile fails with {TENSORFLOW}"


def test_keras_calls_the_loop_that_our_layers_override():
    """`inner_loop` is no documented method of Keras, though its name is public."""
    calls = []

    class Counted(rnn.LSTM):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            calls.append([type(v).__name__ for v in (sequences, initial_state, mask)])
            return super().inner_loop(sequences, initial_state, mask, training)

    x, mask = tf.zeros([2, 3, 4]), tf.ones([2, 3], tf.bool)
    assert Counted(5)(x, mask=mask).shape == (2, 5)
    assert len(calls) == 1, "Keras's RNN.call no longer runs inner_loop: common/rnn.py"


# --- No private name elsewhere --------------------------------------------------------------------


def is_private(name):
    return name == "__internal__" or (name.startswith("_") and not name.endswith("__"))


def own_names(tree):
    """Yield the private names that a file defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            is_self = isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls")
            if isinstance(node, ast.Name):
                yield node.id
            elif is_self:
                yield node.attr


def private_uses(tree, own):
    """Yield the uses of private names of libraries, given the names that the project defines."""
    private_modules = tuple(f"{module}." for module in PRIVATE_MODULES)
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (m for m in modules if f"{m}.".startswith(private_modules))
        name = None
        if isinstance(node, ast.Attribute):
            name, owner = node.attr, ast.unparse(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr") and node.args:
            owner, *names = map(ast.unparse, node.args)  # getattr(owner, "name")
            name = names[0].strip("'\"") if names else None
        if name and is_private(name):
            is_theirs = owner.split(".")[0] in LIBRARIES
            if is_theirs or name not in own:
                yield f"{owner}.{name}"


OWN = {name for path in FILES for name in own_names(ast.parse(path.read_text(encoding="utf-8")))}


@pytest.mark.parametrize("folder", FOLDERS)
def test_private_names_of_libraries_stand_in_one_module(folder):
    wrong = {}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(folder) and name not in EXEMPT:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            uses = sorted(set(private_uses(tree, OWN.union(STANDARD))))
            wrong |= {name: uses} if uses else {}
    assert not wrong, f"move these to {MODULE}: {wrong}"


@pytest.mark.parametrize(
    "source",
    [
        "from tensorflow.python.eager import record",
        "from tensorflow.python import eager",
        "import keras.src.backend as backend",
        "from keras import src",
        "layer._flatten_layers()",
        "getattr(layer, '_tracker')",
        "monkeypatch.setattr(layer, '_tracker', 1)",
        "converter._experimental_option = True",
        "tf.__internal__.tracking",
        "keras.layers._own",
    ],
)
def test_the_rule_finds_private_names(source):
    assert list(private_uses(ast.parse(source), {"_own"}))


@pytest.mark.parametrize(
    "source",
    [
        "from tensorflow.core.protobuf import saved_model_pb2",
        "rnn_kernels._own(1)",
        "self._own",
        "tf.Module.__init__",
        "getattr(layer, 'units')",
    ],
)
def test_the_rule_allows_public_and_own_names(source):
    assert not list(private_uses(ast.parse(source), {"_own"}))
