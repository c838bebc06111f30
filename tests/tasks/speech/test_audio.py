import io
import sys

from common.errors import InputError
from tasks.speech import audio
from tasks.speech.audio import Part
from tests.tasks.own.speech import RATE, speak

import av
import numpy as np
import pytest
import soundfile


def test_pieces_are_the_recording_cut_at_its_silences(tmp_path):
    rng = np.random.default_rng(0)
    loud = [rng.uniform(-0.5, 0.5, RATE * n) for n in (3, 2, 4, 1)]
    quiet = np.zeros(RATE // 2)
    parts = [part for sound in loud for part in (sound, quiet)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), RATE, subtype="FLOAT")
    pieces = list(audio.split_at_silences(tmp_path / "a.wav", 5 * RATE))
    whole = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces]), whole)
    for start, _ in pieces[1:]:
        assert not np.abs(whole[start - 100 : start + 100]).any()
    ((start, piece),) = audio.split_at_silences(tmp_path / "a.wav", 20 * RATE)
    assert start == 0 and len(piece) == len(whole)


def test_other_rates_and_channels_become_16_khz_mono(tmp_path):
    sound = speak("ab", np.random.default_rng(0), 44_100)
    channels = np.stack([sound, np.zeros_like(sound)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", channels, 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", 0.5 * sound, 44_100, subtype="FLOAT")
    stereo, mono = (audio.read(tmp_path / name) for name in ("stereo.wav", "mono.wav"))
    assert stereo.dtype == np.float32 and abs(len(stereo) - len(sound) * RATE / 44_100) <= 1
    np.testing.assert_allclose(stereo, mono, atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_one_channel_of_a_recording_is_read(tmp_path, rate):
    levels = np.array([0.5, -0.25])
    soundfile.write(tmp_path / "a.wav", np.tile(levels, (rate, 1)), rate)
    for channel, level in (("1", 0.5), ("2", -0.25), ("mix", 0.125)):
        sound = audio.read(tmp_path / "a.wav", part=Part(channel))
        assert sound[RATE // 2] == pytest.approx(level, abs=1e-3)
    soundfile.write(tmp_path / "mono.wav", np.zeros(rate), rate)
    with pytest.raises(InputError, match=r"mono\.wav: has 1 channel, so there is no --channel 2"):
        audio.read(tmp_path / "mono.wav", part=Part("2"))


@pytest.mark.parametrize("ending", [".m4a", ".webm"])
def test_containers_are_read_by_pyav(tmp_path, ending, monkeypatch):
    path = tmp_path / f"a{ending}"
    sound = speak("abc", np.random.default_rng(0), 48_000)
    write_container(path, np.stack([sound, 0.5 * sound]), 48_000)
    mono = audio.read(path)
    assert mono.dtype == np.float32
    assert len(mono) == pytest.approx(len(sound) / 3, abs=0.1 * RATE)
    assert audio.measure(path) == pytest.approx(len(mono) / RATE, abs=0.1)
    first, second = (np.abs(audio.read(path, part=Part(channel))).mean() for channel in "12")
    assert second == pytest.approx(0.5 * first, rel=0.1)
    part = audio.read(path, part=Part("mix", 0.2, 0.5))
    np.testing.assert_array_equal(part, mono[round(0.2 * RATE) : round(0.5 * RATE)])
    path.write_bytes(b"no sound")
    with pytest.raises(InputError, match="is not a readable sound file"):
        audio.read(path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"needs av.*\[video\].*, or convert .* to WAV"):
        audio.read(path)


def write_container(path, channels, rate):
    """Write `<float>[2, samples]` by PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".m4a" else "libopus", rate=rate)
        stream.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(channels.astype(np.float32), "fltp", "stereo")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def test_files_in_memory_equal_files_on_disk(tmp_path):
    samples = audio.to_int16(speak("ab", np.random.default_rng(0)))
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    expected = samples.astype(np.float32) / 2.0**15
    np.testing.assert_array_equal(audio.read(tmp_path / "a.flac"), expected)
    content = (tmp_path / "a.flac").read_bytes()
    np.testing.assert_array_equal(audio.read(io.BytesIO(content), "a.flac"), expected)
    np.testing.assert_array_equal(audio.read_bytes(content, "a.flac"), expected)
    big_endian = samples.astype(">i2").tobytes()
    np.testing.assert_array_equal(audio.read_bytes(big_endian, "a.raw"), expected)


def test_sound_without_a_header_or_a_whole_sample_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(3200))
    soundfile.write(tmp_path / "short.wav", np.zeros(1), 48_000)
    with pytest.raises(InputError, match=r"a\.raw: is sound without a header"):
        audio.read(tmp_path / "a.raw")
    with pytest.raises(InputError, match=r"short\.wav: contains no samples at 16 kHz"):
        audio.read(tmp_path / "short.wav")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("odd.raw", b"abc", "odd.raw: expected 16-bit samples, got 3 bytes"),
        ("empty.raw", b"", "empty.raw: expected 16-bit samples, got 0 bytes"),
        ("text.wav", b"no sound at all", "text.wav: is not a readable sound file"),
    ],
)
def test_bytes_that_are_no_sound_are_refused(name, content, message):
    with pytest.raises(InputError, match=message):
        audio.read_bytes(content, name)


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    (tmp_path / "x.wav").write_text("x")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"soundfile.*pip install -e '\.\[speech\]'"):
        audio.read(tmp_path / "x.wav")
