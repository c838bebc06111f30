"""Paragraphs as sentences: a list for each language, with sentences of our own."""

from tasks.translation.sentences import join_sentences, split_sentences

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# A bar stands between two sentences.
PARAGRAPHS = [
    ("fr", "Bonjour ! |Comment allez-vous ? |Je vais bien."),
    ("fr", "M. Dupont et Mme Roy arrivent. |Le Dr. Martin part à 8 h."),
    ("fr", "« Viens ! » dit-il. |Elle vint."),
    ("fr", "« Viens ! » |Elle vint."),
    ("fr", "Il coûte 3.50 euros. |C'est cher…|Non ?".replace("…|", "… |")),
    ("fr", "Voir p. 12 et chap. 3. |Fin."),
    ("fr", "J. R. R. Tolkien écrit. |Oui."),
    ("fr", "Quoi ?! |Rien... |Ah bon."),
    ("fr", "Attends... je viens. |Merci."),
    ("en", "Mr. Smith met Dr. Jones at 5 p.m. on Monday. |They talked."),
    ("en", 'The U.S. Army left. |He said no. |"Why?" she asked.'),
    ("en", '"Come in." |He did. |(It rained.) |So what?'),
    ("en", "1. Open the box. |2. Close it."),
    ("en", "It was me and I. |You knew, e.g. Tom or No. 5. |Right?"),
    ("en", "He was born in 1990. |She was not."),
    ("de", "Am 3. Mai kam Hr. Meier, z.B. mit Dr. Kunz. |Alles gut?"),
    ("de", "Es war 1990. |Das war schön."),
    ("es", "¿Qué tal? |¡Muy bien! |El Sr. Gómez y la Sra. Ruiz duermen."),
    ("it", "Il sig. Rossi dorme. |E tu?"),
    ("pt", "O Sr. Silva dorme. |E você?"),
    ("nl", "Dhr. Jansen slaapt. |En jij?"),
    ("ru", "Он живёт на ул. Ленина. |А ты? |Нет!"),
    ("ja", "はい。|「元気ですか？」|そうです！|東京へ行きます。"),
    ("zh", "你好！|今天很冷。|他说：“走吧。”|好。"),
    ("ko", "집에 있어요. |내일 만나요!"),
    ("hi", "मैं घर पर हूँ। |क्या आप आएँगे? |हाँ।"),
    ("ar", "أنا في البيت. |أين أنت؟ |نعم!"),
    ("fa", "من خانه هستم. |کجایی؟ |بله."),
    ("el", "Καλημέρα. |Τι κάνεις;"),
    ("th", "ผมอยากกินข้าว วันนี้ร้อนมาก"),
    ("xx", "One. |Two."),
]


@pytest.mark.parametrize(("language", "text"), PARAGRAPHS)
def test_paragraphs_are_split_at_the_ends_of_sentences(language, text):
    expected = [part.strip() for part in text.split("|")]
    sentences = split_sentences(text.replace("|", ""), language)
    assert [sentence.text for sentence in sentences] == expected


def test_lines_begin_sentences_and_regions_belong_to_languages():
    sentences = split_sentences("Un\n\n deux.  Trois\r\nM. Roy.", "fr-CA")
    assert [tuple(sentence) for sentence in sentences] == [
        ("Un", "\n\n "),
        ("deux.", "  "),
        ("Trois", "\r\n"),
        ("M. Roy.", ""),
    ]
    assert split_sentences(" ", "fr") == [("", "")]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aBé1.!?…。」»\"' \n\u00a0", max_size=30), st.sampled_from(["fr", "ja"]))
def test_nothing_is_lost(text, language):
    sentences = split_sentences(text, language)
    assert "".join(f"{sentence.text}{sentence.gap}" for sentence in sentences) == text.strip()


def test_translations_are_joined_as_their_language_demands():
    assert join_sentences(["A.", "B.", "C"], ["  ", "\n\n", ""]) == "A.  B.\n\nC"
    assert join_sentences(["はい。", "「いいえ。」", "x"], [" ", " ", ""]) == "はい。「いいえ。」x"
    assert join_sentences(["A.", "", "C."], ["", "", ""]) == "A.  C."
