"""Exports under any input: every row gets valid outputs, and no row affects another.

Only a wrong rank or type raises. All requests go to `serving_default`; each task's `serving.py`
defines the outputs of an invalid row.
"""

import time

from common.serving import check
from common.serving.rows import LONGEST_TEXT
from tests.tasks.own import dna, speech, video
from tests.tasks.shipped import NAMES, task_of
from tests.tasks.speech.recordings import english

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.serving

few = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
many = settings(few, max_examples=1000)
LENGTHS = (0, -1, 10**6, 2**31 - 1, -(2**31))  # no tensor here has one of them
SAMPLES = 160_000  # of the longest recording
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1.0, -1e30)

BLANK = (b"", b" ", b"\t\r\n", "\u3000".encode())
ODD = (b"\xff\xfe\x80", b"\x00\x01\x02\x7f", b"\xed\xa0\x80", "\U0001f600\u202e\u0301".encode())
# More bytes than are read of a text, and a character on the edge.
LONG = (b"so " * 9_000, b"x" * 16_383 + "\U0001f600".encode(), b"\xff" * 20_000)
texts = st.one_of(
    st.sampled_from(BLANK + ODD + (b"a superb plot", b"Ada Byron met Omar .", b"Le chat dort.")),
    st.sampled_from(LONG),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
)
sequences = st.one_of(
    st.sampled_from((b"", b"ACG T", b"ACGJ", b"\xff", b"NRYacgt", b"A" * 1000, b"\x00ACGT")),
    # Longer than a model reads: one for genes with introns, and one for those without.
    st.sampled_from((b"A" * 65_537, b"ACGT" * 262_145)),
    st.text("ACGTacgtNRYKMSWBDHVU", max_size=80).map(str.encode),
)


# --- Rows: their strategies, their requests, and the checks of their outputs ----------------------


def padded(random, arrays, junk):
    """Stack arrays of different shapes, padded with `junk(shape)`."""
    shape = np.max([array.shape for array in arrays], axis=0)
    whole = junk((len(arrays), *shape)).astype(arrays[0].dtype)
    for row, array in enumerate(arrays):
        whole[(row, *map(slice, array.shape))] = array
    return whole


@st.composite
def recordings(draw):
    """Draw samples, their stated length, and whether the row is valid."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    count = draw(st.sampled_from((1, 1500, 1600, 4000, 9000)))
    sound = (0.1 * random.normal(size=count)).astype(np.float32)
    length, good = count, count >= 1600
    kind = draw(st.sampled_from(("valid", "spoken", "number", "silent", "length", "loud", "long")))
    if kind == "spoken":
        sound, good = speech.speak("ab", random), True
        length = len(sound)
    elif kind == "number":
        sound[random.integers(count)] = draw(st.sampled_from(NUMBERS[:3]))
        good = False
    elif kind == "silent":
        sound[:], good = 0.0, False
    elif kind == "loud":
        sound[random.integers(count)] = loudness = draw(st.sampled_from((-1e5, 1.1e5, -1e30, 3e38)))
        good &= abs(loudness) <= 1e5
    elif kind == "long":
        length = draw(st.sampled_from((SAMPLES, SAMPLES + 1)))
        sound, good = np.resize(sound, length), length <= SAMPLES
    elif kind == "length":
        length, good = draw(st.sampled_from(LENGTHS)), False
    return sound, length, good


@st.composite
def clips(draw):
    random = np.random.default_rng(draw(st.integers(0, 99)))
    shape = [draw(st.integers(1, most)) for most in (12, 40, 40)]
    frames = random.integers(0, 256, (*shape, 3), np.uint8)
    length, size, rate, good = shape[0], list(shape[1:]), draw(st.sampled_from((8.0, 25.0))), True
    kind = draw(st.sampled_from(("valid", "length", "size", "rate", "slow")))
    if kind == "length":
        length, good = draw(st.sampled_from(LENGTHS)), False
    elif kind == "size":
        size[draw(st.integers(0, 1))], good = draw(st.sampled_from(LENGTHS)), False
    elif kind == "rate":
        rate, good = draw(st.sampled_from((*NUMBERS, 0.0, 1e-30, 0.99, 1001.0, 1e30))), False
    elif kind == "slow":
        rate = draw(st.sampled_from((1.0, 1000.0)))
    return frames, length, size, rate, good


@st.composite
def primes(draw):
    random = np.random.default_rng(draw(st.integers(0, 99)))
    count = draw(st.integers(1, 6))
    row = {
        "prime": (random.random((count, 88)) < 0.04).astype(np.float32),
        "prime_length": draw(st.integers(0, count)),
        "steps": draw(st.integers(0, 4)),
        "temperature": draw(st.sampled_from((0.0, 1e-30, 0.5, 1.0, 1000.0))),
        "top_p": draw(st.sampled_from((0.0, 0.5, 1.0))),
        "seed": [draw(st.integers(-(2**31), 2**31 - 1)) for _ in range(2)],
        "good": True,
    }
    kind = draw(
        st.sampled_from(("valid", "number", "prime_length", "steps", "temperature", "top_p"))
    )
    if kind == "number":
        row["prime"][0, 3], row["prime_length"] = draw(st.sampled_from(NUMBERS[:3])), count
    elif kind == "prime_length":
        row["prime_length"] = draw(st.sampled_from(LENGTHS[1:]))
    elif kind == "steps":
        row["steps"] = draw(st.sampled_from((769, *LENGTHS[1:])))
    elif kind == "temperature":
        row["temperature"] = draw(st.sampled_from((*NUMBERS, 1001.0, 1e30)))
    elif kind == "top_p":
        row["top_p"] = draw(st.sampled_from((*NUMBERS, 1.01, 1e30)))
    row["good"] = kind == "valid"
    return row


def request(task, rows, seed=0):
    """Return a request of several rows, padded with junk."""
    random = np.random.default_rng(seed)
    if task in ("sentiment", "ner", "translation"):
        return {"text": np.array(rows, object)}
    if task == "dna":
        return {"sequence": np.array(rows, object)}

    def noise(shape):
        return random.choice([0.7, -0.3, np.nan, np.inf, 1e30], size=shape)

    def pixels(shape):
        return random.integers(0, 256, shape)

    if task == "speech":
        sounds, lengths, _ = zip(*rows, strict=True)
        return {"audio": padded(random, sounds, noise), "length": np.array(lengths, np.int32)}
    if task == "video":
        frames, lengths, sizes, rates, _ = zip(*rows, strict=True)
        return {
            "frames": padded(random, frames, pixels),
            "length": np.array(lengths, np.int32),
            "size": np.array(sizes, np.int32),
            "frame_rate": np.array(rates, np.float32),
        }
    inputs = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "prime"}
    del inputs["good"]
    return {"prime": padded(random, [row["prime"] for row in rows], noise), **inputs}


STRATEGIES = {
    **dict.fromkeys(("sentiment", "ner", "translation"), texts),
    **{"dna": sequences, "speech": recordings(), "video": clips(), "music": primes()},
}


def check_outputs(served, task, rows, outputs):
    """Check that all outputs are finite and valid, and those of invalid rows empty."""
    for name, array in outputs.items():
        assert len(array) == len(rows)
        if array.dtype == object:
            for value in array.flat:
                value.decode()  # UTF-8
        else:
            assert np.isfinite(array).all(), name
    for index, row in enumerate(rows):
        globals()[f"check_{task}"](served, row, {k: v[index] for k, v in outputs.items()})


def check_sentiment(served, text, outputs):
    if text in BLANK:
        assert outputs["label"] == b""
    empty = outputs["label"] == b""
    assert outputs["label"].decode() in ("", *served.settings["labels"])
    assert (outputs["stars"] == 0) == empty and 0 <= outputs["stars"] <= 5
    assert outputs["probabilities"].sum() == pytest.approx(0.0 if empty else 1.0, abs=1e-5)


def check_ner(served, text, outputs):
    length = outputs["length"]
    assert 0 <= length <= served.settings["config"]["max_length"]
    assert not (length and text in BLANK)
    assert all(tag.decode() in served.settings["labels"] for tag in outputs["tags"][:length])
    assert not any(outputs["tags"][length:]) and not any(outputs["tokens"][length:])
    before = b"O"
    for tag in outputs["tags"][:length]:  # IOB2
        assert not tag.startswith(b"I-") or before[2:] == tag[2:]
        before = tag
    start, end = outputs["start"][:length], outputs["end"][:length]
    assert (start < end).all() and (end[:-1] <= start[1:]).all()
    assert not outputs["start"][length:].any() and not outputs["end"][length:].any()
    read = tf.strings.substr(text, 0, LONGEST_TEXT)
    repaired = tf.strings.unicode_transcode(read, "UTF-8", "UTF-8", "replace").numpy().decode()
    for token, first, last in zip(outputs["tokens"], start, end, strict=False):
        assert repaired[first:last] == token.decode()


def check_translation(served, text, outputs):
    assert outputs["score"] <= 0.0
    if text in BLANK:
        assert outputs["translation"] == b"" and outputs["score"] == 0.0


def check_dna(served, sequence, outputs):
    valid = all(letter in b"ACGTUNRYKMSWBDHV" for letter in sequence.upper())
    size = len(sequence) if valid and len(sequence) <= served.settings["max_bases"] else 0
    assert len(outputs["labels"]) == size and set(outputs["labels"].decode()) <= set(".CcIi")
    np.testing.assert_allclose(outputs["probabilities"][:size].sum(axis=-1), 1.0, atol=1e-4)
    assert not outputs["probabilities"][size:].any()


def check_speech(served, row, outputs):
    assert 0.0 <= outputs["confidence"] <= 1.0
    assert (outputs["confidence"] == 0.0) == (outputs["text"] == b"")
    assert set(outputs["text"].decode()) <= set(served.settings["letters"])
    if not row[-1]:
        assert outputs["text"] == b""


def check_video(served, row, outputs):
    good = row[-1]
    assert outputs["activity"].decode() in (served.settings["labels"] if good else [""])
    assert outputs["probabilities"].sum() == pytest.approx(float(good), abs=1e-5)


def check_music(served, row, outputs):
    length = row["prime_length"] + row["steps"] if row["good"] else 0
    assert outputs["length"] == length and not outputs["notes"][length:].any()
    assert set(np.unique(outputs["notes"])) <= {0.0, 1.0}
    if length:
        prime = row["prime"][: row["prime_length"]] > 0.5
        assert np.array_equal(outputs["notes"][: len(prime)] > 0.5, prime)


def assert_rows_equal(together, alone, tolerance=1e-5):
    """Compare the outputs of a row, except for trailing zeros (or "") where the batch was longer.

    The sums of a resized pixel run in another order in larger pictures, so it may be rounded to a
    neighbouring level, which changes the probabilities of a clip a little.
    """
    tolerance = 1e-3 if "activity" in alone else tolerance
    assert set(together) == set(alone)
    for name, array in alone.items():
        most = np.maximum(together[name].shape, array.shape)
        padding = b"" if array.dtype == object else 0
        one, other = (
            np.pad(a, [(0, n) for n in most - a.shape], constant_values=padding)
            for a in (together[name], array)
        )
        assert check.difference(one, other) <= tolerance, name


def check_together_and_alone(served, task, rows):
    outputs = served.call("serving_default", **request(task, rows))
    check_outputs(served, task, rows, outputs)
    for index, row in enumerate(rows):
        alone = served.call("serving_default", **request(task, [row], seed=1))
        together = {name: value[index : index + 1] for name, value in outputs.items()}
        assert_rows_equal(together, alone)


# --- Tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
@given(data=st.data())
@few
def test_every_row_gets_valid_outputs_equal_to_those_it_gets_alone(model, served, data):
    task = task_of(model)
    rows = data.draw(st.lists(STRATEGIES[task], min_size=1, max_size=5), label="rows")
    check_together_and_alone(served[model], task, rows)


@pytest.mark.slow
@pytest.mark.parametrize("model", NAMES)
@given(data=st.data())
@many
def test_rows_of_1000_requests_get_valid_outputs(model, served, data):
    task = task_of(model)
    rows = data.draw(st.lists(STRATEGIES[task], min_size=1, max_size=5), label="rows")
    check_together_and_alone(served[model], task, rows)


def rows_of(task):
    """Return a few rows; the first two are valid, some of the others are not."""
    random = np.random.default_rng(0)
    if task in ("sentiment", "ner", "translation"):
        return [b"a superb plot", b"Le chat noir dort.", b"", b"\xff", b"Ada Byron sleeps"]
    if task == "dna":
        return [b"ACGTACGT", dna.letters(random, 90).encode(), b"", b"?", b"N"]
    if task == "speech":
        sound = english()[0][1]
        bad = np.full(2000, np.nan, np.float32)
        return [(sound, len(sound), True), (sound[:3000], 3000, True), (bad, 2000, False)]
    if task == "video":
        frames = video.body("waving", 1)[:6]
        good = (frames, 6, list(frames.shape[1:3]), 8.0, True)
        return [good, (frames[:2, :9], 2, [9, 32], 25.0, True), (*good[:3], 0.0, False)]
    plain = {"steps": 3, "temperature": 1.0, "top_p": 1.0, "seed": [1, 2], "good": True}
    prime = np.zeros((2, 88), np.float32)
    good = {"prime": prime, "prime_length": 1, **plain}
    return [good, {**good, "seed": [3, 4]}, {**good, "steps": -3, "good": False}]


@pytest.mark.parametrize("size", [0, 1, 257])
@pytest.mark.parametrize("model", NAMES)
def test_batches_of_no_of_one_and_of_257_rows(model, size, served):
    task = task_of(model)
    few_rows = rows_of(task)
    rows = [few_rows[n % len(few_rows)] for n in range(size)]
    inputs = {name: value[:size] for name, value in request(task, rows or few_rows).items()}
    outputs = served[model].call("serving_default", **inputs)
    check_outputs(served[model], task, rows, outputs)
    for row in range(min(size, len(few_rows))):
        together = {name: value[row : row + 1] for name, value in outputs.items()}
        alone = served[model].call("serving_default", **request(task, [rows[row]], seed=1))
        assert_rows_equal(together, alone)
        last = size - size % len(few_rows) - len(few_rows) + row
        again = {name: value[last : last + 1] for name, value in outputs.items()}
        if size > 2 * len(few_rows):
            assert_rows_equal(again, alone)


@pytest.mark.parametrize(
    "model", [name for name in NAMES if task_of(name) in ("sentiment", "ner", "translation", "dna")]
)
@pytest.mark.parametrize(
    "text", [b"A" * 100_000, b"ac " * 33_334, "\u6771\u4eac".encode() * 50_000]
)
def test_100000_characters(model, text, served):
    task = task_of(model)
    check_together_and_alone(served[model], task, [text, *rows_of(task)[:2]])


@pytest.mark.parametrize("model", NAMES)
def test_rows_longer_than_the_stated_maximum(model, served):
    task, settings = task_of(model), served[model].settings
    first, second = rows_of(task)[:2]
    if task == "speech":
        rows = [first, (np.resize(second[0], 2 * SAMPLES), 2 * SAMPLES, False)]
        assert settings["max_samples"] == SAMPLES
    elif task == "video":  # the model reads the first 96 frames, 10 a second
        frames = np.tile(first[0], (20, 1, 1, 1))
        rows = [first, (frames, len(frames), [32, 32], 8.0, True)]
    elif task == "music":
        rows = [first, {**second, "steps": 769, "good": False}]
    elif task == "dna":
        rows = [first, b"ACGT" * (settings["max_bases"] // 4 + 1)]
    else:
        rows = [first, b"so on and " * 500]
    check_together_and_alone(served[model], task, rows)


def beyond_the_budget(task, rows):
    """Return requests of ever longer rows after `rows`, as `(signature, inputs)`.

    Those that a budget admits are short or few, so that only a row beyond it could take long.
    """
    long = np.zeros((4096, 88), np.float32)
    if task == "music":  # 8,192 frames
        row = {**rows[0], "steps": 768}
        pieces = np.stack([long] * 6)
        return [
            ("serving_default", request(task, [*rows, *[row] * 100])),
            ("serving_default", request(task, [*rows, {**row, "prime": long, "steps": 10**9}])),
            ("tensors", {"notes": pieces, "length": [2, 2, 4096, 4096, 4096, 4096]}),
        ]
    if task == "dna":  # 98,304 bases with introns, 1,048,576 without
        return [("serving_default", request(task, [*rows, *[b"ACGT" * 5_000] * 60, b"A" * 10**7]))]
    if task == "speech":  # 20,480,000 samples: 128 of the longest rows
        sound = np.resize(rows[0][0], SAMPLES)
        rows = [*rows, *[(sound, SAMPLES, True)] * 129]
        return [("serving_default", request(task, rows))]
    if task == "video":  # 33,554,432 pixels of a clip, 6,144 frames
        picture = np.zeros((1, 2100, 2100, 3), np.uint8)
        clip = (picture, 1, [2100, 2100], 1.0, False)
        frames = np.zeros((1, 6145, 32, 32, 3), np.uint8)
        return [
            ("serving_default", request(task, [*rows, clip])),
            ("tensors", {"frames": frames, "length": [6145]}),
        ]
    texts = [*rows, *[b"so on and " * 1638] * 300]  # 4,194,304 bytes
    return [("serving_default", request(task, texts)), ("explain", request(task, texts))]


@pytest.mark.parametrize("model", NAMES)
def test_rows_beyond_the_budget_of_a_request_cost_nothing_and_the_shorter_ones_stay(model, served):
    task = task_of(model)
    rows = rows_of(task)[:2]
    alone = served[model].call("serving_default", **request(task, rows))
    for signature, inputs in beyond_the_budget(task, rows):
        start = time.process_time()
        outputs = served[model].call(signature, **inputs)
        assert time.process_time() - start < 10.0
        for name, value in outputs.items():
            assert value.dtype == object or np.isfinite(value).all()
            last = value[-1]
            assert not (last != -1).any() if name == "alignment" else not np.any(last), name
        if signature == "serving_default":
            for row in range(2):
                assert_rows_equal(
                    {name: value[row : row + 1] for name, value in outputs.items()},
                    {name: value[row : row + 1] for name, value in alone.items()},
                )


@pytest.mark.parametrize("model", NAMES)
def test_only_a_wrong_rank_or_type_raises_and_the_process_lives(model, root, served):
    task = task_of(model)
    good = request(task, rows_of(task)[:2])
    version = root / model / "1"
    call_cpp = check.CppExport(version, check.read_signatures(version))
    good = {
        name: value.astype(spec.dtype.as_numpy_dtype)
        for name, value in good.items()
        for key, spec in served[model]
        .functions["serving_default"]
        .structured_input_signature[1]
        .items()
        if key == name
    }
    for name, value in good.items():
        with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
            served[model].call("serving_default", **{**good, name: value[None]})
        wrong = (
            np.zeros(value.shape) if value.dtype == object else np.full(value.shape, b"a", object)
        )
        with pytest.raises((TypeError, ValueError)):
            served[model].call("serving_default", **{**good, name: wrong})
        for other in (value[None], value[0]):  # TensorFlow's C++ loader
            try:
                call_cpp("serving_default", {**good, name: np.asarray(other, value.dtype)})
            except RuntimeError as error:
                assert "C++ loader" in str(error)
    outputs = call_cpp("serving_default", good)
    check_outputs(served[model], task, rows_of(task)[:2], outputs)
