"""Speed of the video task: decoding, a training step, the export; compared with stock Keras.

    python -m tests.benchmarks.video
    python -m tests.benchmarks.video --frames 64 --batch 8 --repeats 30

The stock model has the same layers and weights, but it applies `keras.layers.TimeDistributed` to
the frames, and its recurrent layers are those of Keras. The training steps of both models
alternate. Only our model is exported, since the stock model cannot be traced for any batch and
time. The output holds medians in clips per second. The last line is one JSON object; in its ratios,
above 1.0 our model is faster.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from common.attention import MaskedPooling
from common.rnn import length_mask
from common.serving.publish import publish
from common.serving.served import load_export
from tasks.video import clips, gaits, model, serving
from tasks.video.config import PRESETS

import keras
import numpy as np
import tensorflow as tf
from keras import ops

RATE = 12.5


@keras.saving.register_keras_serializable("benchmark")
class ChannelsOverTime(keras.layers.Layer):
    """The channels of `model.FrameChannels` with separate batch and time dimensions."""

    def call(self, frames, mask):
        channels = model.FrameChannels()(frames, mask)
        shape = ops.shape(frames)
        return ops.reshape(channels, (shape[0], shape[1], *channels.shape[1:]))

    def compute_output_spec(self, frames, mask):
        return keras.KerasTensor((*frames.shape[:4], 5))


def stock(config, classes):
    """Build the model of `model.build` with TimeDistributed and the recurrent layers of Keras."""
    side = config.image_size
    pictures = keras.Input((side, side, 5))
    per_frame = keras.Model(pictures, model.frame_features(pictures, config))
    frames = keras.Input((None, side, side, 3), dtype="uint8", name="frames")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, frames)
    x = keras.layers.TimeDistributed(per_frame)(ChannelsOverTime()(frames, mask))
    x = keras.layers.Dropout(config.dropout)(x)
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[config.cell]
    for _ in range(config.layers):
        rnn = layer(config.units, return_sequences=True, zero_output_for_mask=True)
        x = keras.layers.Bidirectional(rnn)(x, mask=mask)
    pooled, _ = MaskedPooling(config.pooling)(x, mask=mask)
    head = keras.layers.Dense(classes)
    steps = ops.softmax(head(x)) * ops.cast(mask, "float32")[..., None]
    pooled = keras.layers.Dropout(config.head_dropout)(pooled)
    outputs = {"probabilities": ops.softmax(head(pooled)), "frame_probabilities": steps}
    return keras.Model({"frames": frames, "length": length}, outputs)


def training_step(network, config, classes, batch):
    losses = model.make_losses(config, classes)
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            inputs = {name: batch[name] for name in network.input}
            values, _ = losses(network(inputs, training=True), batch)
            loss = tf.reduce_mean(values)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    return lambda: step().numpy()


def exported(network, config, labels, folder):
    """Publish a model as `train` does, and load it as `predict` does."""
    limits = {"rate": config.frame_rate, "longest": config.max_length}
    side = config.image_size
    path = publish(
        serving.signatures(network, labels, side=side, **limits),
        model=network,
        resources=[],
        examples=serving.examples(side, config.frame_rate, [8]),
        settings={"labels": labels},
        directory=folder / "video",
    )
    return load_export(path)


def interleaved(calls, repeats):
    """Return the median seconds of each call; the calls alternate."""
    times = {name: [] for name in calls}
    for round_number in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_number >= 2:  # the first ones trace and compile
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.video",
        description="Measure the speed of the video task.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=32, help="frames of each clip")
    parser.add_argument("--batch", type=int, default=16, help="clips of a training step")
    parser.add_argument("--repeats", type=int, default=20, help="calls of each measurement")
    options = parser.parse_args()
    config, labels = PRESETS["gaits"], list(gaits.ACTIVITIES)
    rendered = [
        gaits.clip(activity, 0, 0, rate=RATE, size=config.image_size) for activity in labels
    ]
    files = [clips.encode(frames, RATE) for frames in rendered]
    start = time.perf_counter()
    for _ in range(options.repeats):
        for file in files:
            clips.read(file, rate=RATE)
    decoded = options.repeats * len(files) / (time.perf_counter() - start)
    result = {"decode": decoded}

    random = np.random.default_rng(0)
    shape = (options.batch, options.frames, config.image_size, config.image_size, 3)
    batch = {
        "frames": tf.constant(random.integers(0, 256, shape, np.uint8)),
        "length": tf.constant(
            random.integers(options.frames // 2, options.frames + 1, shape[0]), tf.int32
        ),
        "label": tf.constant(random.integers(0, len(labels), shape[0])),
    }
    networks = {
        "ours": model.build(config, classes=len(labels)),
        "stock": stock(config, len(labels)),
    }
    steps = {
        name: training_step(network, config, len(labels), batch)
        for name, network in networks.items()
    }
    for name, seconds in interleaved(steps, options.repeats).items():
        result[f"train_{name}"] = options.batch / seconds
    with tempfile.TemporaryDirectory() as folder:
        request = clips.clip_request([frames[: options.frames] for frames in rendered[:1]], [RATE])
        calls = {}
        served = exported(networks["ours"], config, labels, Path(folder))
        calls["ours"] = lambda: served.call("serving_default", **request)
        for name, seconds in interleaved(calls, 5 * options.repeats).items():
            result[f"export_{name}"] = 1.0 / seconds
    for name, value in result.items():
        print(f"{name:14} {value:9.1f} clips/s")
    result["train_ours_over_stock"] = result["train_ours"] / result["train_stock"]
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
