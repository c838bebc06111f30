"""Files and folders that the tests of the video task read."""

import wave
from fractions import Fraction

from tasks.video import clips, render
from tests.tasks.own.video import SIDE

import av
import numpy as np


def write_video(path, frames, rate=25, codec="mpeg4", pix_fmt="yuv420p", source="rgb24", **meta):
    """Writes frames with any codec and pixel format."""
    with av.open(str(path), "w") as container:
        container.metadata.update(meta)
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format=source)))
        container.mux(stream.encode(None))
    return path


def noise(time, height=SIDE, width=SIDE, seed=0, channels=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (time, height, width, channels), np.uint8)


def make_folder(folder, **classes):
    """A folder of tiny clips: class -> names."""
    content = clips.encode(noise(3, 16, 16), 12.5)
    for label, names in classes.items():
        (folder / label).mkdir(parents=True)
        for name in names:
            (folder / label / name).write_bytes(content)
    return folder


def wav(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8000)


def half_mp4(path):
    content = clips.encode(noise(30), 25.0)
    path.write_bytes(content[: len(content) // 2])


BAD_FILES = {
    "junk.avi": (lambda path: path.write_bytes(b"no video" * 99), "cannot be read as video"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "cannot be read as video"),
    "half.mp4": (half_mp4, "cannot be read as video"),
    "sound.wav": (wav, "no video in this file"),
    "notes.txt": (lambda path: path.write_text("a line\n" * 99), "no video|cannot be read"),
    "list.m3u8": (
        lambda path: path.write_text(
            "#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n"
        ),
        "no video|cannot be read",
    ),
    "gone.avi": (lambda path: None, "cannot be read as video: No such file"),
}


def bone_lengths(joints):
    """The lengths of all bones, `[frames, bones]`."""
    index = render.JOINT_INDEX
    bones = [(index[joint], index[parent]) for joint, parent in render.PARENTS.items()][1:]
    return np.stack([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in bones], 1)


def call(served, frames, rates, signature="serving_default"):
    """The outputs of an export for clips."""
    return served.call(signature, **clips.clip_request(frames, rates))


def write_ramp(path, count=40, rate=20, codec="libx264", size=(64, 48), **options):
    """Write frames of rising brightness; returns the brightness of each.

    Args:
      options: `b_frames`, `pix_fmt`, and options of the codec.
    """
    grey = np.linspace(30, 220, count)
    width, height = size
    b_frames, pix_fmt = options.pop("b_frames", 0), options.pop("pix_fmt", "yuv420p")
    # Short clusters, so that damage in a small Matroska file is not the end of it.
    muxer = {"cluster_time_limit": "200"} if str(path).endswith(".mkv") else {}
    with av.open(str(path), "w", container_options=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        for value in grey:
            pixels = np.full((height, width, 3), round(value), np.uint8)
            # Something that moves, so that an encoder uses its B-frames.
            pixels[:8, int(value) % (width - 8) :][:, :8] = 255 - round(value)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return grey


# Codecs and containers: name of the file -> arguments of `write_ramp`.
CONTAINERS = {
    "b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264.avi": {"codec": "libx264", "b_frames": 3},
    "plain.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.mp4": {"codec": "libx264", "b_frames": 3},
    "mpeg4.mov": {"codec": "mpeg4", "b_frames": 2},
    "h264.mkv": {"codec": "libx264", "b_frames": 3},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg1.mpg": {"codec": "mpeg1video", "b_frames": 2, "rate": 25},
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2, "rate": 25},
    "h264.mts": {"codec": "libx264", "b_frames": 3},
    "flv.flv": {"codec": "flv"},
    "wmv.wmv": {"codec": "wmv2"},
    "phone.3gp": {"codec": "mpeg4"},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "raw.m2v": {"codec": "mpeg2video", "b_frames": 2, "rate": 25},
}
