"""Exports of all seven tasks for other targets, of small models with random weights."""

import dataclasses
import importlib
from typing import Any

from common import rnn_kernels
from common.data import bucket_lengths
from common.errors import InputError
from common.serving import targets
from common.serving.check import difference
from common.serving.publish import publish
from common.serving.served import load_export
from common.serving.versions import GRAPH
from common.text import Vocabulary
from common.word_embedding import WordEmbedding
from tests.tasks.exports import TASKS

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.serving

WORDS = ("film", "a", "warm", "london", "in", "lived")


@dataclasses.dataclass
class Small:
    """A model and the other arguments of `publish`; `sign(target)` makes the signatures."""

    model: keras.Model
    sign: Any
    examples: Any
    lengths: Any = ()
    resources: Any = ()


def embedding(members=1):
    layer = WordEmbedding(8, 8, 4, members=members)
    layer.build((None, None))
    layer.set_fixed(np.random.default_rng(0).normal(size=(8, 4)))
    return layer


def sentiment(folder):
    from tasks.sentiment import model, serving
    from tasks.sentiment.config import Config
    from tasks.sentiment.tokens import Reader

    Vocabulary.write(folder / "vocabulary.txt", WORDS)
    reader = Reader(Vocabulary(folder / "vocabulary.txt"))
    built = model.build(Config(units=5, members=2), embedding(), classes=3)
    sign = lambda target: serving.signatures(built, reader, "abc", 12, target)  # noqa: E731
    return Small(built, sign, serving.examples([8, 12]), [8, 12], [reader])


def ner(folder):
    from tasks.ner import model, serving
    from tasks.ner.config import Config
    from tasks.ner.data import Reader

    Vocabulary.write(folder / "words.txt", WORDS)
    Vocabulary.write(folder / "characters.txt", "abcABC01.-")
    vocabularies = [Vocabulary(folder / name) for name in ("words.txt", "characters.txt")]
    reader, tags = Reader(*vocabularies, 6), ["O", "B-PER", "I-PER"]
    shape = model.WordShape(12, name="shape")
    built = model.build(Config(units=5, word_length=6), embedding(), shape, tags=tags)
    shape.fill(["", "", *"abcABC01.-"])
    sign = lambda target: serving.signatures(built, reader, tags, 12, target)  # noqa: E731
    return Small(built, sign, serving.examples([8, 12], 6), [8, 12], [reader])


def dna(folder):
    from tasks.dna import model, serving
    from tasks.dna.config import Config

    config = Config(filters=6, units=5, layers=1, convolutions=1)
    built = model.build(config)
    random = np.random.default_rng(0)
    for weight in built.weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    sign = lambda target: serving.signatures(built, config, target)  # noqa: E731
    return Small(built, sign, serving.examples(config))


def video(folder):
    from tasks.video import model, serving
    from tasks.video.config import Config

    built = model.build(Config(image_size=8, channels=(8, 8), features=6, units=5), classes=3)
    options = {"side": 8, "rate": 10.0, "longest": 16}
    sign = lambda target: serving.signatures(built, "abc", **options, target=target)  # noqa: E731
    return Small(built, sign, serving.examples(8, 10.0, [8, 16]), [8, 16])


def speech(folder):
    from tasks.speech import model, serving
    from tasks.speech.config import Config

    built = model.build(Config(units=5, layers=1, channels=3, bands=16), symbols=3)
    options = {"weight": 0.0, "bonus": 0.0, "beam": 2, "max_samples": 9000}

    def sign(target):
        recognizer = serving.Recognizer(built, (" ", "a", "b"), None, **options, target=target)
        return serving.signatures(recognizer)

    return Small(built, sign, serving.examples([6000, 9000]), [6000])


def translation(folder):
    from tasks.translation import model, serving, subwords
    from tasks.translation.config import Config

    subwords.learn([b"je ne sais pas", b"ou est la gare"] * 3, folder / "p.txt", size=260)
    pieces = subwords.Subwords(folder / "p.txt")
    config = Config(embedding=6, units=8, encoder_layers=1, decoder_layers=1)
    built = model.build(config, source_size=len(pieces), target_size=len(pieces))
    options = {"max_length": 12, "beam": 3, "alpha": 0.6}

    def sign(target):
        return serving.signatures(built, pieces, pieces, **options, target=target)

    return Small(built, sign, serving.examples(12), bucket_lengths(13, 2), [pieces])


def music(folder):
    from tasks.music import model, serving
    from tasks.music.config import Config

    built = model.build(
        Config(units=6, key_units=4, layers=1, members=2), low=38, high=47, frames=98
    )
    for variable in built.trainable_variables:
        variable.assign(3.0 * variable + (0.5 if "out" in variable.path else 0.0))
    return Small(built, lambda target: serving.signatures(built, target), serving.examples())


# These take a minute or two each to trace and compile.
HEAVY = ("dna", "music", "sentiment", "speech", "translation", "video")


@pytest.fixture(
    scope="module",
    params=[pytest.param(t, marks=pytest.mark.slow) if t in HEAVY else t for t in TASKS],
)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def small(task, tmp_path_factory):
    keras.utils.set_random_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        if task == "music":  # a loop of 4096 steps would take too long
            patch.setattr("tasks.music.serving.LENGTHS", (16, 64))
            patch.setattr("tasks.music.serving.CHUNK", 32)
        yield globals()[task](tmp_path_factory.mktemp("vocabularies"))


@pytest.fixture(scope="module")
def tpu(small, task, tmp_path_factory):
    """The target with its traced cores, and the export."""
    target = targets.choose("tpu", task, small.lengths)
    target = dataclasses.replace(target, batch=2)
    root = tmp_path_factory.mktemp("saved_models")
    version = publish(
        small.sign(target),
        model=small.model,
        resources=small.resources,
        examples=small.examples,
        settings={},
        directory=root / target.folder(task),
        target=target,
    )
    return target, version


def tensors(example, specs):
    return {spec.name: tf.constant(example[spec.name], spec.dtype) for spec in specs}


def test_the_export_for_a_tpu_returns_the_outputs_of_the_portable_one(small, tpu):
    served = load_export(tpu[1])
    for name, function in small.sign(targets.PORTABLE).items():
        with rnn_kernels.portable():
            portable = tf.function(
                function.python_function, input_signature=function.input_signature
            ).get_concrete_function()
        for example in small.examples[name]:
            inputs = tensors(example, function.input_signature)
            expected = portable(**inputs)
            outputs = served.call(name, **inputs)
            assert sorted(outputs) == sorted(expected)
            for key, value in expected.items():
                assert difference(outputs[key], value.numpy()) <= 1e-4, (name, key)


def any_tensors(specs):
    """Return random inputs of a core: lengths of 1 or more, small whole numbers, floats."""
    random = np.random.default_rng(0)
    time = max([spec.shape[1] for spec in specs.values() if spec.shape.rank > 1] or [1])
    inputs = {}
    for key, spec in specs.items():
        if spec.dtype.is_floating:
            value = random.uniform(size=spec.shape)
        else:
            most = time if spec.shape.rank == 1 else 3
            value = random.integers(1, most + 1, spec.shape)
        inputs[key] = tf.constant(value, spec.dtype)
    return inputs


def test_each_core_compiles_and_returns_the_same_numbers(tpu):
    target, version = tpu
    loaded = tf.saved_model.load(str(version))  # holds the variables
    assert target.cores
    for alias in target.cores:
        concrete = target.cores[alias].get_concrete_function()
        inputs = any_tensors(concrete.structured_input_signature[0][0])
        expected = loaded.cores[alias](inputs)
        with rnn_kernels.portable():
            compiled = tf.function(target.cores[alias].python_function, jit_compile=True)(inputs)
        for key, value in expected.items():
            assert difference(compiled[key].numpy(), value.numpy()) <= 1e-4, (alias, key)


def test_every_core_has_static_shapes_an_alias_and_no_bfloat16(tpu):
    target, version = tpu
    saved = saved_model_pb2.SavedModel.FromString((version / GRAPH).read_bytes())
    aliases = saved.meta_graphs[0].meta_info_def.function_aliases
    assert set(aliases.values()) == set(target.cores)
    for function in target.cores.values():
        concrete = function.get_concrete_function()
        for spec in [*concrete.inputs, *concrete.outputs]:
            if spec.dtype != tf.resource:
                assert spec.shape.is_fully_defined() and spec.dtype != tf.bfloat16


@pytest.mark.parametrize("task", TASKS)
def test_litert_is_refused_before_training_with_the_reason(task):
    if task == "sentiment":
        return
    train = importlib.import_module(f"tasks.{task}.train")
    with pytest.raises(InputError, match=f"^--target litert is not for {task}: .{{20,}}"):
        train.main(["--target", "litert"])


@pytest.mark.parametrize("task", TASKS)
def test_bfloat16_stays_inside_an_export(task, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        signatures = globals()[task](tmp_path).sign(targets.PORTABLE)
        with rnn_kernels.portable():
            traced = {name: f.get_concrete_function() for name, f in signatures.items()}
    finally:
        keras.config.set_dtype_policy(before)
    for name, concrete in traced.items():
        specs = signatures[name].input_signature
        types = {x.dtype for x in (*specs, *concrete.structured_outputs.values())}
        assert types <= {tf.float32, tf.int32, tf.string, tf.uint8, tf.bool}, name
    assert "DT_BFLOAT16" in str(traced["tensors"].graph.as_graph_def())
