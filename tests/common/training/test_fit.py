"""The training loop against a hand-written one, and a resumed run against an uninterrupted one."""

import csv
import dataclasses
import itertools
import math
import signal
import subprocess
import sys
import textwrap

from common import rnn_kernels
from common.errors import InputError, TrainingError
from common.rnn import LSTM
from common.training.checkpoint import CHECKPOINT
from common.training.fit import SHORT_RUN, FitOptions, fit, to_numpy, warmed_cosine

import keras
import numpy as np
import pytest
import tensorflow as tf

DATA = np.random.default_rng(0)
X = DATA.normal(size=(96, 5)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0, 3.0]) + 0.3).astype(np.float32)


def make_model(dropout=0.0):
    x = keras.Input((5,), name="x")
    hidden = keras.layers.Dropout(dropout)(keras.layers.Dense(8, activation="tanh")(x))
    return keras.Model({"x": x}, {"y": keras.layers.Dense(1)(hidden)})


def batches(order, size=16):
    return tf.data.Dataset.from_tensor_slices({"x": X[order], "target": Y[order]}).batch(size)


def train(epoch):
    return batches(np.random.default_rng(epoch).permutation(80))


def losses(outputs, batch):
    squared = tf.square(outputs["y"][:, 0] - batch["target"])
    return squared, tf.ones_like(squared)


def score(pairs):
    errors = [np.abs(out["y"][:, 0] - batch["target"]) for batch, out in pairs]
    return {"error": float(np.concatenate(errors).mean())}


def run(directory, *, seed=3, epochs=4, dropout=0.0, optimizer=None, strategy=None, **kwargs):
    keras.utils.set_random_seed(seed)
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = make_model(dropout)
        optimizer = optimizer or keras.optimizers.Adam(0.01)
    arguments = {
        "optimizer": optimizer,
        "losses": losses,
        "train": train,
        "validation": batches(np.arange(80, 96)),
        "score": score,
        "monitor": "error",
        "mode": "min",
    }
    options = {
        "epochs": epochs,
        "patience": 99,
        "directory": directory,
        "settings": {"seed": seed},
        "strategy": strategy,
        "verbose": 0,
    }
    names = {field.name for field in dataclasses.fields(FitOptions)}
    options |= {name: kwargs.pop(name) for name in names & kwargs.keys()}
    return model, fit(model, **{**arguments, **kwargs}, options=FitOptions(**options))


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_steps_equal_a_hand_written_loop(tmp_path):
    model, fitted = run(tmp_path, epochs=2, optimizer=keras.optimizers.SGD(0.05), clip_norm=0.5)
    keras.utils.set_random_seed(3)
    by_hand, means = make_model(), []
    for epoch in range(2):
        values = []
        for batch in train(epoch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(losses(by_hand({"x": batch["x"]}), batch)[0])
            gradients = tape.gradient(loss, [v.value for v in by_hand.trainable_variables])
            norm = np.sqrt(sum((g.numpy() ** 2).sum() for g in gradients))
            for variable, gradient in zip(by_hand.trainable_variables, gradients, strict=True):
                variable.assign(variable - 0.05 * gradient * min(1.0, 0.5 / norm))
            values.append(float(loss))
        means.append(np.mean(values))
    np.testing.assert_allclose([row["loss"] for row in fitted.history], means, rtol=1e-5)
    assert fitted.best_epoch == 2  # so the model holds the last weights
    np.testing.assert_allclose(weights(model), weights(by_hand), atol=1e-6)


def fit_table(folder, optimizer, *, clip_norm):
    """Fit an embedding to 5 for three steps; yield it, and its gradient, before each and after all.

    Its first rows are used many times, and the last one never.
    """
    ids = DATA.integers(0, 3, (16, 6))
    keras.utils.set_random_seed(3)
    x = keras.Input((6,), dtype="int32", name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Embedding(4, 2)(x)})
    steps = [model.get_weights()[0]]

    def squares(outputs, batch):
        values = tf.reduce_sum((outputs["y"] - 5.0) ** 2, axis=(1, 2))
        return values, tf.ones_like(values)

    def keep(pairs):
        steps.append(model.get_weights()[0])
        return {"error": float(len(list(pairs)))}

    data = tf.data.Dataset.from_tensors({"x": ids})
    options = FitOptions(epochs=3, patience=9, directory=folder, verbose=0, clip_norm=clip_norm)
    fit(
        model,
        optimizer=optimizer,
        losses=squares,
        train=lambda epoch: data,
        validation=data,
        score=keep,
        monitor="error",
        mode="min",
        options=options,
    )
    uses = np.bincount(ids.ravel(), minlength=4)[:, np.newaxis]
    assert len(steps) == 4 and uses.max() > 20 and uses[3] == 0
    return [(table, 2 / 16 * uses * (table - 5.0)) for table in steps]


def test_the_norm_of_an_embedding_is_that_of_the_sums_of_its_uses(tmp_path):
    steps = fit_table(tmp_path, keras.optimizers.SGD(0.05), clip_norm=0.5)
    for (before, gradient), (after, _) in itertools.pairwise(steps):
        norm = np.sqrt((gradient**2).sum())
        assert norm > 0.5
        np.testing.assert_allclose(after, before - 0.05 * gradient * 0.5 / norm, atol=1e-6)


def test_adam_squares_the_sum_of_the_uses_of_a_row(tmp_path):
    """Keras 3.15 would add up the squares, so that frequent rows would make larger steps."""
    steps = fit_table(tmp_path, keras.optimizers.Adam(0.1), clip_norm=None)
    mean, square = np.zeros((4, 2)), np.zeros((4, 2))
    for number, ((before, gradient), (after, _)) in enumerate(itertools.pairwise(steps), start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        change = (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.999**number)) + 1e-7)
        np.testing.assert_allclose(after, before - 0.1 * change, atol=1e-4)


@pytest.mark.parametrize(("steps", "is_compiled"), [(SHORT_RUN - 1, False), (SHORT_RUN, True)])
def test_a_short_run_is_not_compiled(steps, is_compiled, tmp_path, monkeypatch):
    forms, may_compile = set(), rnn_kernels.may_compile

    def record():
        forms.add(may_compile())
        return max(forms)

    monkeypatch.setattr(rnn_kernels, "may_compile", record)
    x = keras.Input((5, 1), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Dense(1)(LSTM(32)(x))})

    def sequences(order):
        return batches(order).map(lambda row: {**row, "x": row["x"][:, :, None]})

    fit(
        model,
        optimizer=keras.optimizers.Adam(),
        losses=losses,
        train=lambda epoch: sequences(np.arange(16)),
        validation=sequences(np.arange(16, 32)),
        score=score,
        monitor="error",
        mode="min",
        options=FitOptions(directory=tmp_path, epochs=1, patience=1, steps=steps, verbose=0),
    )
    assert forms == {is_compiled}


def test_losses_are_weighted_by_example(tmp_path):
    def doubled(outputs, batch):
        values, ones = losses(outputs, batch)
        return 2.0 * values, 2.0 * ones

    plain, _ = run(tmp_path / "a", epochs=1)
    twice, _ = run(tmp_path / "b", epochs=1, losses=doubled)
    np.testing.assert_allclose(weights(plain), weights(twice), atol=1e-6)


def test_the_best_epoch_is_kept_and_patience_stops(tmp_path):
    scores = iter([5.0, 3.0, 4.0, 3.5, 1.0])
    epochs = []

    class Record(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append((weights(self.model), logs["val_error"]))

    model, fitted = run(
        tmp_path,
        epochs=9,
        patience=2,
        callbacks=[Record()],
        score=lambda pairs: {"error": next(scores) + 0 * len(list(pairs))},
    )
    assert [row["val_error"] for row in fitted.history] == [5.0, 3.0, 4.0, 3.5]
    assert [value for _, value in epochs] == [5.0, 3.0, 4.0, 3.5]
    assert fitted.best_epoch == 2
    np.testing.assert_array_equal(weights(model), epochs[1][0])


def test_the_moving_statistics_of_the_best_epoch_are_restored(tmp_path):
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    model = keras.Model(
        {"x": x}, {"y": keras.layers.Dense(1)(keras.layers.BatchNormalization()(x))}
    )
    scores, means = iter([2.0, 1.0, 3.0, 4.0]), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            means.append(self.model.layers[1].moving_mean.numpy())

    fit(
        model,
        optimizer=keras.optimizers.Adam(0.01),
        losses=losses,
        train=train,
        validation=batches(np.arange(80, 96)),
        score=lambda pairs: {"error": next(scores) + 0 * len(list(pairs))},
        monitor="error",
        mode="min",
        options=FitOptions(
            directory=tmp_path, epochs=4, patience=9, verbose=0, callbacks=[Watch()]
        ),
    )
    np.testing.assert_array_equal(model.layers[1].moving_mean.numpy(), means[1])
    assert not np.array_equal(means[1], means[3])


def test_keras_callbacks_control_the_run(tmp_path):
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert np.isfinite(logs["loss"])

        def on_epoch_end(self, epoch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))
            self.model.stop_training = epoch == 2

    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    _, fitted = run(tmp_path, epochs=9, callbacks=[schedule, Rates()])
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3], rtol=1e-6)
    assert len(fitted.history) == 3


def test_the_log_has_a_row_per_epoch(tmp_path):
    _, fitted = run(tmp_path, epochs=3)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in fitted.history]
    assert list((tmp_path / "tensorboard").rglob("events*"))


@pytest.mark.parametrize(("average", "minutes"), [(0.0, math.inf), (0.9, math.inf), (0.9, 1e-9)])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, average, minutes):
    settings = {"dropout": 0.4, "average": average, "checkpoint_minutes": minutes}
    ran = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ran.append(int(self.model.optimizer.iterations))

    whole, fitted = run(tmp_path / "whole", epochs=6, **settings)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 17:  # in the fourth epoch
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", epochs=6, callbacks=[Stop()], **settings)
    # Another seed before the checkpoint is read must not matter.
    resumed, again = run(
        *(tmp_path / "cut",),
        **{"epochs": 6, "seed": 8, "settings": {"seed": 3}, "resume": True},
        callbacks=[Steps()],
        **settings,
    )
    # Five steps an epoch: the fourth begins with step 16, and step 17 was not saved.
    assert ran[0] == (16 if minutes == math.inf else 17) and ran[-1] == 30
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    for one, other in zip(fitted.history, again.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_finished_run_resumes_to_the_same_model(tmp_path):
    whole, _ = run(tmp_path, epochs=3)
    again, fitted = run(tmp_path, epochs=3, resume=True)
    np.testing.assert_array_equal(weights(whole), weights(again))
    assert len(fitted.history) == 3


SCRIPT = """
    import sys, pathlib, time
    sys.path.insert(0, {tests!r})
    from tests.common.training.test_fit import *
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print(int(self.model.optimizer.iterations), flush=True)
            time.sleep(0.05)
    slow = sys.argv[2] == "slow"
    model, _ = run(
        pathlib.Path(sys.argv[1]), epochs=4, dropout=0.4, resume=not slow,
        callbacks=[Slow()] if slow else [],
    )
    np.save(sys.argv[1] + "/weights.npy", weights(model))
"""


@pytest.mark.commands  # a run that Ctrl-C ends resumes in the default tier
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_exactly(tmp_path, pytestconfig):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=str(pytestconfig.rootpath))))
    command = [sys.executable, str(script), str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 13:  # five steps per epoch: this is in the middle of the third
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "weights.npy").exists()
    subprocess.run([*command, "resume"], check=True, capture_output=True)
    whole, _ = run(tmp_path / "whole", epochs=4, dropout=0.4)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "weights.npy"), weights(whole))


def test_a_run_resumes_from_the_epoch_before_a_damaged_checkpoint(tmp_path, capsys):
    whole, _ = run(tmp_path / "whole", epochs=4, dropout=0.4)
    run(tmp_path / "cut", epochs=3, dropout=0.4)
    (tmp_path / "cut" / CHECKPOINT).write_bytes(b"")
    resumed, fitted = run(tmp_path / "cut", epochs=4, dropout=0.4, resume=True)
    np.testing.assert_array_equal(weights(whole), weights(resumed))
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4]
    assert "checkpoint.npz is damaged" in capsys.readouterr().err


def test_other_data_is_not_resumed_even_by_a_finished_run(tmp_path):
    run(tmp_path, epochs=1, fingerprints={"training data": "a", "vocabulary": "b"})
    with pytest.raises(TrainingError, match="was made from other training data, vocabulary: "):
        run(tmp_path, epochs=1, fingerprints={"training data": "c"}, resume=True)


@pytest.mark.parametrize(("rows", "reads"), [(16, 1), (320, 2), (336, 2), (656, 3)])
def test_losses_are_read_from_the_device_every_twenty_steps(rows, reads, tmp_path, monkeypatch):
    counts, losses_seen = [], []

    def read(tensors):
        counts.append(len(tensors))
        return to_numpy(tensors)

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses_seen.append(logs["loss"])

    monkeypatch.setattr("common.training.fit.to_numpy", read)
    _, fitted = run(
        tmp_path, epochs=1, train=lambda epoch: batches(np.arange(rows) % 80), callbacks=[Record()]
    )
    assert len(counts) == reads and sum(counts) == rows // 16 == len(losses_seen)
    monkeypatch.setattr("common.training.fit.READ_EVERY", 1)
    _, each = run(tmp_path, epochs=1, train=lambda epoch: batches(np.arange(rows) % 80))
    assert fitted.history[0]["loss"] == each.history[0]["loss"]


def test_other_settings_are_not_resumed(tmp_path):
    run(tmp_path, epochs=1)
    with pytest.raises(TrainingError, match="another seed: give the same settings"):
        run(tmp_path, epochs=2, seed=4, resume=True)


def test_a_loss_that_is_not_finite_stops_with_a_message_and_keeps_the_checkpoint(tmp_path):
    def infinite(outputs, batch):
        values, ones = losses(outputs, batch)
        return values / tf.cast(tf.reduce_max(batch["target"]) < 6.0, tf.float32), ones

    assert Y[:80].max() > 6.0
    with pytest.raises(TrainingError, match=r"the loss is (inf|nan) at step \d of epoch 1"):
        run(tmp_path / "a", losses=infinite)

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.trainable_variables[0].assign(np.full((5, 8), np.nan))

    with pytest.raises(TrainingError, match="the loss is nan at step 1 of epoch 3"):
        run(tmp_path / "b", callbacks=[Spoil()])
    with np.load(tmp_path / "b" / CHECKPOINT, allow_pickle=False) as arrays:
        assert all(np.isfinite(arrays[name]).all() for name in arrays.files if "/" in name)


def test_missing_examples_are_reported(tmp_path):
    with pytest.raises(InputError, match="no training examples"):
        run(tmp_path, train=lambda epoch: batches(np.arange(0)))
    with pytest.raises(InputError, match="no validation examples"):
        run(
            tmp_path,
            validation=batches(np.arange(0)),
            score=lambda pairs: dict(error=len([*pairs])),
        )


def test_averaged_weights_follow_the_formula(tmp_path):
    after_steps = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            after_steps.append(weights(self.model))

    model, _ = run(tmp_path, epochs=1, average=0.2, callbacks=[Watch()])
    keras.utils.set_random_seed(3)
    mean = weights(make_model())
    for step, current in enumerate(after_steps, start=1):
        momentum = min(0.2, step / (step + 10))
        mean = momentum * mean + (1 - momentum) * current
    np.testing.assert_allclose(weights(model), mean, atol=1e-6)


TWO_DEVICES = """
    import sys, pathlib
    sys.path.insert(0, {tests!r})
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from common.training.distribution import make_strategy
    from tests.common.training.test_fit import *
    strategy = make_strategy("mirrored")
    assert strategy.num_replicas_in_sync == 2
    # Batches of 15 give the replicas parts of different sizes, which must not change the result.
    model, fitted = run(
        pathlib.Path(sys.argv[1]), epochs=3, strategy=strategy, clip_norm=0.5, average=0.5,
        train=lambda epoch: batches(np.arange(80), 15),
    )
    np.save(sys.argv[1] + "/weights.npy", weights(model))
    np.save(sys.argv[1] + "/losses.npy", [row["val_loss"] for row in fitted.history])
"""


@pytest.mark.distribution
def test_two_mirrored_devices_give_the_result_of_one(tmp_path, pytestconfig):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(TWO_DEVICES.format(tests=str(pytestconfig.rootpath))))
    (tmp_path / "two").mkdir()
    command = [sys.executable, str(script), str(tmp_path / "two")]
    subprocess.run(command, check=True, capture_output=True)
    one, fitted = run(
        tmp_path / "one",
        epochs=3,
        clip_norm=0.5,
        average=0.5,
        train=lambda epoch: batches(np.arange(80), 15),
    )
    np.testing.assert_allclose(np.load(tmp_path / "two" / "weights.npy"), weights(one), atol=1e-5)
    losses_of_one = [row["val_loss"] for row in fitted.history]
    np.testing.assert_allclose(np.load(tmp_path / "two" / "losses.npy"), losses_of_one, rtol=1e-5)


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine():
    schedule = warmed_cosine(2.0, steps=120, warmup=1 / 6)
    np.testing.assert_allclose([schedule(0), schedule(10), schedule(20)], [0.0, 1.0, 2.0])
    progress = (70 - 20) / 100
    np.testing.assert_allclose(schedule(70), 1.0 + np.cos(np.pi * progress), rtol=1e-6)
    np.testing.assert_allclose([schedule(120), schedule(500)], [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(warmed_cosine(2.0, steps=8)(8), 0.0, atol=1e-6)
    assert float(warmed_cosine(2.0, steps=8)(0)) == 2.0  # too short to rise
