import struct
import sys
import types
from fractions import Fraction

from common.errors import InputError
from tasks.video import clips, gaits, render
from tests.tasks.video.samples import BAD_FILES, CONTAINERS, noise, write_ramp, write_video

import av
import numpy as np
import pytest


def test_encoding_and_decoding_keep_the_picture():
    frames = render.render(gaits.move("walking", seconds=2.0, rate=12.5, seed=1))
    again = clips.read(clips.encode(frames, 12.5), rate=12.5)
    assert again.shape == frames.shape == (25, 64, 64, 3)
    error = np.sqrt(np.mean((again.astype(float) - frames) ** 2))
    assert error < 12.0  # of 255: chroma is stored at half the resolution


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg1video"}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "gray", "source": "gray"}),
        ("b.mkv", {"codec": "ffv1", "pix_fmt": "bgra", "source": "rgba"}),
        ("a.mov", {"codec": "qtrle", "pix_fmt": "argb", "source": "rgba"}),
    ],
)
def test_every_usual_kind_of_file_is_read(tmp_path, name, options):
    grey = np.linspace(40, 200, 20).astype(np.uint8)
    channels = {"rgb24": 3, "rgba": 4}.get(options.get("source", "rgb24"))
    frames = np.broadcast_to(grey[:, None, None], (20, 48, 64))
    frames = frames if channels is None else np.repeat(frames[..., None], channels, axis=-1)
    path = write_video(tmp_path / name, np.ascontiguousarray(frames), **options)
    decoded = clips.read(path, rate=25.0)
    assert decoded.shape == (20, 48, 64, 3)
    np.testing.assert_allclose(decoded.mean(axis=(1, 2, 3)), grey, atol=6)


@pytest.mark.parametrize("shape", [(33, 57), (1, 400), (2, 2)])
def test_odd_sizes(tmp_path, shape):
    path = write_video(tmp_path / "a.mkv", noise(4, *shape), codec="ffv1", pix_fmt="bgr0")
    frames = clips.read(path, rate=25.0)
    assert frames.shape[0] == 4 and frames.shape[1:3] == (shape if max(shape) < 257 else (1, 256))


def test_frames_larger_than_needed_are_made_smaller(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(2, 360, 640))
    assert clips.read(path, rate=25.0).shape == (2, 144, 256, 3)


def test_pictures_are_turned_upright_and_pixels_squared(tmp_path):
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[:, :24] = 200  # the upper half is bright
    options = {"codec": "libx264"}
    plain = write_video(tmp_path / "a.mp4", picture, **options)
    for name, change in (
        ("turned", lambda stream: stream.set_display_rotation(90)),
        ("wide", lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", 2)),
    ):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            change(stream)
            frame = av.VideoFrame.from_ndarray(picture[0], format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    turned, wide, plain = (
        clips.read(path, rate=25.0)[0]
        for path in (tmp_path / "turned.mp4", tmp_path / "wide.mp4", plain)
    )
    assert turned.shape == (64, 48, 3) and wide.shape == (48, 128, 3)
    error = np.abs(turned.astype(int) - np.rot90(plain)).mean()  # counter-clockwise
    assert error < 3 and turned[:, :12].mean() > 150 > 50 > turned[:, -12:].mean()


def test_metadata_that_is_not_utf8_does_no_harm(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(3), title="QQQQQQQQ")
    content = path.read_bytes()
    assert content.count(b"QQQQQQQQ") == 1
    path.write_bytes(content.replace(b"QQQQQQQQ", b"\xff\xfeG\xfcn\xdf\xc3\x28"))
    assert len(clips.read(path, rate=25.0)) == 3


def test_a_truncated_file_counts_as_far_as_it_goes(tmp_path):
    path = write_video(tmp_path / "whole.mpg", noise(50), codec="mpeg1video")
    content = path.read_bytes()
    (tmp_path / "half.mpg").write_bytes(content[: len(content) // 2])
    assert 10 <= len(clips.read(tmp_path / "half.mpg", rate=25.0)) <= 40


def test_time_stamps_decide_not_the_number_of_frames(tmp_path):
    """Frames at 0, 1, 2, 3 tenths of a second, then one that stays for 0.6 s, then a last one."""
    grey = (10, 50, 90, 130, 170, 250)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt = "gray"
        stream.codec_context.time_base = Fraction(1, 10)
        for place, value in zip((0, 1, 2, 3, 4, 10), grey, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), value, np.uint8), format="gray")
            frame.pts, frame.time_base = place, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    decoded = clips.read(tmp_path / "a.mkv", rate=10.0)[:, 0, 0, 0].tolist()
    assert decoded == [10, 50, 90, 130, *[170] * 6, 250]


def test_a_missing_library_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"this needs av, .*: pip install -e '\.\[video\]'"):
        clips.read(tmp_path / "a.avi", rate=12.5)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named(tmp_path, name):
    make, message = BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .*({message})"):
        clips.read(tmp_path / name, rate=12.5)


# --- true times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_length_and_the_order_are_true_in_every_container(tmp_path, name):
    options = CONTAINERS[name]
    rate = options.get("rate", 20)
    try:
        grey = write_ramp(tmp_path / name, **options)
    except (av.error.FFmpegError, ValueError) as error:  # an encoder that this PyAV lacks
        pytest.skip(str(error))
    frames = clips.read(tmp_path / name, rate=float(rate))
    assert len(frames) == 40
    decoded = frames[:, 16:].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(decoded, grey, atol=9)
    spans = [(start, end) for start, end, _ in clips.timed_frames(tmp_path / name)]
    np.testing.assert_allclose(spans[-1][1], 40 / rate, atol=0.01)
    np.testing.assert_allclose([end - start for start, end in spans], 1 / rate, atol=0.011)


def test_a_pause_in_an_avi_file_is_kept(tmp_path):
    """AVI stores a repeated frame as a packet without data."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for place in (0, 1, 2, 8, 9):
            frame = av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24")
            frame.pts = place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(clips.read(path, rate=10.0)) == 10


def damaged(path, places, length=40):
    """Overwrite parts of a file."""
    content = bytearray(path.read_bytes())
    for place in places:
        start = int(place * len(content))
        content[start : start + length] = b"\xff" * length
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mpg"])
def test_damaged_packets_are_skipped_and_the_rest_is_read(tmp_path, name, capfd):
    codec = "mpeg1video" if name == "a.mpg" else "mpeg4"
    grey = write_ramp(tmp_path / name, count=75, rate=25, codec=codec, g="5")
    damaged(tmp_path / name, [0.4, 0.6])
    frames = clips.read(tmp_path / name, rate=25.0)
    assert 70 <= len(frames) <= 75
    shades = frames[:, 16:].mean(axis=(1, 2, 3))
    assert abs(shades[-1] - grey[-1]) < 12


@pytest.mark.parametrize(
    ("matrix", "change"),
    [
        ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
        ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
        ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
        ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
        ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
        ((0, -1, 1, 0), lambda pixels: np.rot90(pixels)),
        ((0, -1, -1, 0), lambda pixels: np.rot90(pixels).swapaxes(0, 1)[::-1].swapaxes(0, 1)),
    ],
)
def test_mirrored_and_turned_pictures_are_shown_as_players_do(tmp_path, matrix, change):
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[:, :24, :, 0], picture[:, :, :20, 1] = 200, 220
    path = write_video(tmp_path / "a.mp4", picture, codec="libx264")
    plain = clips.read(path, rate=25.0)[0]
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # of the matrix in a track header of version 0
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    assert np.array_equal(clips.read(path, rate=25.0)[0], change(plain))


def test_the_main_stream_of_several_is_read(tmp_path):
    """A small preview comes first; ten frames of it have another colour."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, side in zip(streams, (16, 64), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "gray"
            stream.disposition = 0
        for stream, (side, value) in zip(streams, ((16, 50), (64, 200)), strict=True):
            for _ in range(5):
                pixels = np.full((side, side), value, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="gray")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    frames = clips.read(tmp_path / "a.mkv", rate=25.0)
    assert frames.shape == (5, 64, 64, 3) and frames.mean() == 200


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        ([0, 2, 1, 3], [2, 1, 1]),  # a time runs backwards
        ([0, 1, None, 3], [1, 1, 1]),
        ([5, 6, 0, 1, 2], [1, 1, 1, 1]),  # times begin anew
        ([0, 1, 10**6, 10**6 + 1], [1, 50, 1]),  # a jump counts as five seconds
        ([None, None, None], [1, 1]),
        ([0, 1, 4, 5], [1, 3, 1]),
    ],
)
def test_times_that_cannot_be_are_repaired(times, steps):
    """Of frames with presentation times in tenths of a second."""
    clock = clips._Clock(usual_step=0.1)
    shown = []
    for time in times:
        frame = types.SimpleNamespace(
            time=None if time is None else time / 10, duration=0, time_base=Fraction(1, 10)
        )
        shown.append(clock.show(frame))
    np.testing.assert_allclose(np.diff(shown), np.array(steps) / 10)
