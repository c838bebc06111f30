"""Subword vocabularies, compared with those of the library `tokenizers`."""

from common.errors import InputError
from tasks.translation import subwords
from tasks.translation.datasets import read_gzip_lines
from tasks.translation.subwords import END, Subwords
from tests.tasks.own.translation import own_pairs

import pytest
import tensorflow as tf
import tokenizers

# Sentences of our own in scripts with joiners, marks, or no blanks.
SCRIPTS = (
    "اللُّغَةُ العَرَبِيَّةُ جَمِيلَةٌ، أليس كذلك؟",
    "می\u200cخواهم کتاب\u200cهایم را به خانه ببرم.",
    "आज मैं घर पर हूँ। क्या आप आएँगे? क्\u200dष",
    "昨日、東京　大阪間の電車に乗りました。「すごい！」",
    "วันนี้ฉันอยากกินข้าวที่บ้าน น้ำเย็นไหม",
    "오늘은 집에 있어요. 내일 만나요!",
    "👩\u200d🚀👍🏽❤️🇫🇷🏴\U000e0067\U000e0062\U000e007f",
)


def library(pieces):
    """Return the library's WordPiece with the same pieces; byte b is character number b."""
    vocabulary = [piece.decode("latin-1") for piece in pieces.pieces.numpy()]
    table = {piece: k for k, piece in enumerate(vocabulary) if k > END} | {"<unk>": 10**6}
    return tokenizers.models.WordPiece(
        table, unk_token="<unk>", max_input_chars_per_word=10**5, continuing_subword_prefix=""
    )


def check_against_the_library(pieces, texts):
    """Check that words are split as by the library, and that ids decode to the text."""
    wordpiece = library(pieces)
    ids = pieces.encode(tf.constant(texts))
    for words, row in zip(
        subwords.split_words(subwords.clean(tf.constant(texts))).to_list(),
        ids.to_list(),
        strict=True,
    ):
        expected = [t.id for word in words for t in wordpiece.tokenize(word.decode("latin-1"))]
        assert row == expected
    decoded = pieces.decode(ids.to_tensor(), ids.row_lengths()).numpy()
    assert decoded.tolist() == subwords.clean(tf.constant(texts)).numpy().tolist()


def test_subwords_equal_the_librarys(pieces, odd_texts):
    texts = [text for pair in own_pairs()[:50] for text in pair]
    check_against_the_library(pieces, [*odd_texts, *texts])


def test_subwords_equal_the_librarys_on_real_test_sets(shared_data, tmp_path):
    folder = shared_data / "translation" / "multi30k"
    for side in ("fr", "en"):
        lines = {
            part: read_gzip_lines(folder / f"{name}.{side}.gz")
            for part, name in (("train", "val"), ("test", "test_2016_flickr"))
        }
        path = tmp_path / side
        subwords.learn([line.encode() for line in lines["train"]], path, size=2000)
        check_against_the_library(Subwords(path), lines["test"])


@pytest.mark.parametrize(
    "text", ["", " \t\n", "\u3000", " \u3000\u3000 ", "\u200d", " \u200c\u3000\U000e007f"]
)
def test_a_text_without_anything_visible_is_empty(text):
    assert subwords.clean(tf.constant([text])).numpy()[0] == b""
    inside = subwords.clean(tf.constant([f"{text}東京\u3000大阪{text}"])).numpy()[0].decode()
    assert inside.strip(" \u200c\u200d\U000e007f\u3000") == "東京\u3000大阪"


def test_texts_are_cleaned_not_changed():
    texts = subwords.clean(tf.constant([b" Ou\xff \t\n es-tu\xc2\xa0? ", b"\x00\x01", b"ab c"]))
    assert texts.numpy().tolist() == ["Ou\ufffd es-tu ?".encode(), b"", b"ab c"]
    assert subwords.clean(tf.constant(["été" * 50]), characters=4).numpy()[0].decode() == "étéé"


def test_texts_of_all_scripts_are_decoded_as_they_were(tmp_path):
    path = tmp_path / "scripts"
    subwords.learn([text.encode() for text in SCRIPTS * 3], path, size=700)
    pieces = Subwords(path)
    ids = pieces.encode(tf.constant(SCRIPTS))
    decoded = pieces.decode(ids.to_tensor(), ids.row_lengths()).numpy()
    assert [text.decode() for text in decoded] == list(SCRIPTS)
    assert max(ids.row_lengths().numpy()) < 30  # pieces, not bytes
    # Joiners are inside words.
    assert (
        subwords.split_words(tf.constant([SCRIPTS[1]]))[0, 0].numpy().decode() == " می\u200cخواهم"
    )


def test_what_no_script_needs_is_unified():
    texts = ["e\u0301te\u0301\u00a0\u202f?", "so\u00adft\ufeff", "x\u200by", "\ue000a", "\u200eab"]
    cleaned = subwords.clean(tf.constant(texts)).numpy()
    assert [text.decode() for text in cleaned] == ["été ?", "soft", "xy", "a", "ab"]


def test_a_second_vocabulary_of_the_same_path_has_its_own_pieces(tmp_path):
    """Two trainings in one process write to the same path."""
    path = tmp_path / "subwords.txt"
    subwords.learn([b"Elle chante."] * 5, path, size=240)
    first = Subwords(path)
    subwords.learn([b"Il dansait."] * 5, path, size=240)
    second = Subwords(path)
    for pieces, whole, parts in (
        (first, "Elle chante.", "Il dansait."),
        (second, "Il dansait.", "Elle chante."),
    ):
        ids = pieces.encode(tf.constant([whole, parts]))
        spelled = tf.gather(pieces.pieces, ids).to_list()
        assert len(spelled[0]) == 3 and len(spelled[1]) > 6
        decoded = pieces.decode(ids.to_tensor(), ids.row_lengths()).numpy().tolist()
        assert decoded == [whole.encode(), parts.encode()]


def test_special_symbols_in_a_text_are_ordinary_characters(pieces):
    ids = pieces.encode(tf.constant(["<pad></s><s>"])).to_list()[0]
    assert min(ids) > END


def test_dropped_subwords_still_spell_the_text(pieces):
    texts = tf.constant(["Le chat noir mange."] * 2)
    words = subwords.split_words(texts)

    def encode(seed):
        ids = pieces.encode_words(words, dropout=0.4, seed=tf.constant([seed, 0]))
        return tuple(ids.merge_dims(1, 2).to_list()[0])

    encodings = {encode(seed) for seed in range(8)}
    assert len(encodings) > 4
    for ids in encodings:
        text = pieces.decode(tf.constant([ids]), tf.constant([len(ids)]))
        assert text.numpy()[0] == b"Le chat noir mange."
    assert encode(3) == encode(3)


def test_an_invalid_vocabulary_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("<pad>\n<unk>\nhouse\n")
    with pytest.raises(InputError, match=r"words\.txt: not a subword vocabulary: expected"):
        Subwords(tmp_path / "words.txt")
    with pytest.raises(
        InputError, match=r"a vocabulary needs 2\d\d pieces or more, got 100; see --source_subwords"
    ):
        subwords.learn([b"house"], tmp_path / "x.txt", size=100)
