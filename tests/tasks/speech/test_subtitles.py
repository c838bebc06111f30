import re

from tasks.speech.subtitles import LETTERS, Cue, Word, cues, to_subtitles


def spoken(text, start=0.0, each=0.4):
    return [
        Word(word, start + number * each, start + number * each + 0.3, 1.0)
        for number, word in enumerate(text.split())
    ]


def test_cues_end_at_pauses_and_at_their_limits():
    words = spoken("one two three") + spoken("four", start=3.0)
    assert list(cues(words)) == [
        Cue(0.0, 1.1, ("one two three",)),
        Cue(3.0, 3.3, ("four",)),
    ]
    long = spoken("word " * 60, each=0.31)
    shown = list(cues(long))
    assert sum(len(line.split()) for cue in shown for line in cue.lines) == 60
    for cue in shown:
        assert cue.end - cue.start <= 7.0 and len(cue.lines) <= 2
        assert max(map(len, cue.lines)) <= LETTERS
    (cue,) = cues(spoken("a" * 60))  # a word is not broken
    assert cue.lines == ("a" * 60,)


def test_both_formats_have_their_form():
    words = spoken("one two") + spoken("three", start=3661.0)
    srt = to_subtitles(words, ".srt")
    assert srt == (
        "1\n00:00:00,000 --> 00:00:00,700\none two\n\n2\n01:01:01,000 --> 01:01:01,300\nthree\n"
    )
    vtt = to_subtitles(words, ".vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.700\none two\n\n01:01:01.000")
    assert not re.search(r"\d,\d", vtt)


def test_a_recording_without_words_has_an_empty_file():
    assert to_subtitles([], ".srt") == ""
    assert to_subtitles([], ".vtt") == "WEBVTT\n"
