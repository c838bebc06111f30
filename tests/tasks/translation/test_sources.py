"""Sources in one form, and words that are copied."""

from tasks.translation import data, sources, subwords
from tasks.translation.sources import KINDS, NAMES, NUMBERS
from tasks.translation.subwords import FIRST_COPY, MOST_COPIES

import pytest
import tensorflow as tf


def texts_of(function, texts):
    return [text.decode() for text in function(tf.constant(texts)).numpy()]


@pytest.mark.parametrize(
    ("text", "unified"),
    [
        ("L’été, l‘été, l`été", "L'été, l'été, l'été"),
        ("« Où es-tu ? »", '"Où es-tu?"'),
        ("„Ja“, “yes”", '"Ja", "yes"'),
        ("Oui ! Non ; si : ah !? Eh !", "Oui! Non; si: ah!? Eh!"),
        ("Bien :) 10 :30", "Bien :) 10 :30"),
        ("「はい」 私は…", "「はい」 私は…"),
    ],
)
def test_typography_of_sources_is_unified(text, unified):
    assert texts_of(sources.unify, [text]) == [unified]


@pytest.mark.parametrize(
    ("text", "written", "loud"),
    [
        ("JE VOUDRAIS UN CAFÉ.", "Je voudrais un café.", True),
        ("¡QUÉ BONITO! ¿NO?", "¡Qué bonito! ¿no?", True),
        ("ΚΑΛΗΜΕΡΑ ΣΑΣ", "Καλημερα σας", True),
        ("je pars", "Je pars", False),
        ('"oui", dit-il', '"Oui", dit-il', False),
        ("La SNCF et l'ONU", "La SNCF et l'ONU", False),
        ("I", "I", False),
        ("3 KM", "3 km", True),
        ("www.example.org est là", "www.example.org est là", False),
        ("東京です", "東京です", False),
        ("我有DVD", "我有DVD", False),
        ("", "", False),
    ],
)
def test_capitals_are_the_same_sentence(text, written, loud):
    texts, louds = sources.sentence_case(tf.constant([text]))
    assert (texts.numpy()[0].decode(), bool(louds[0])) == (written, loud)


def found(pieces, text, kinds=KINDS, **kwargs):
    words = subwords.split_words(tf.constant([text]), whole=True)
    copies = sources.find_copies(words, pieces.encode_words(words), kinds, **kwargs)
    words = sources.copied_words(copies).numpy()[0].tolist()
    return [word.decode() for word in words if word]


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        (
            "Voir https://example.org/a?b=1, et WWW.Example.org.",
            "https://example.org/a?b=1 WWW.Example.org",
        ),
        ("Écris à jean.dupont+x@mail.example.fr!", "jean.dupont+x@mail.example.fr"),
        ("Un <b>mot</b> ici", "<b> </b>"),
        ("Le 14/07/1789 à 10:30, 3.50 ou 3,50 %, pas 7.", "14/07/1789 10:30 3.50 3,50"),
        ("Il y a 12 345 678 gens", "12 345 678"),
        ("Nous voyons Kowalczykowa. Kowalczykowa dort", "Kowalczykowa"),
        ("Le chat noir.", ""),
        ("a < b et b > c", ""),
    ],
)
def test_addresses_tags_numbers_and_rare_names_are_copied(pieces, text, copied):
    expected = copied.split(" ") if "12 345" not in copied else [copied]
    assert found(pieces, text) == list(filter(None, expected))


def test_only_the_chosen_kinds_are_copied_up_to_a_limit(pieces):
    text = "Voir www.example.org et Kowalczykowa le 12 ou 13."
    assert found(pieces, text, (NUMBERS,)) == ["12", "13"]
    assert found(pieces, text, (NAMES,)) == ["Kowalczykowa"]
    assert found(pieces, text, ()) == []
    many = " ".join(str(number) for number in range(10, 30))
    assert found(pieces, many) == [str(number) for number in range(10, 10 + MOST_COPIES)]
    assert found(pieces, "Un Chien dort", (NAMES,), known_names=0.999) == ["Chien"]


def test_placeholders_stand_for_words_on_both_sides(pieces):
    source = ["Je vois Kowalczykowa, 25 et 30.", "Rien ici."]
    target = ["At 30 I see Kowalczykowa and x.", "Nothing 25."]
    encoded = sources.encode_pairs(
        pieces, pieces, tf.constant(source), tf.constant(target), kinds=KINDS
    )
    copied = [
        [i for i in row if FIRST_COPY <= i < FIRST_COPY + 2 * MOST_COPIES]
        for side in encoded
        for row in side.to_list()
    ]
    # With a leading space: the odd ones. 25 stands on one side only.
    name, number = FIRST_COPY + 1, FIRST_COPY + 5
    assert copied == [[name, number], [], [number, name], []]
    words = tf.constant([["Kowalczykowa", "?", "30", *[""] * (MOST_COPIES - 3)]] * 2)
    for side, texts in zip(encoded, (source, target), strict=True):
        decoded = pieces.decode(side.to_tensor(), side.row_lengths(), words).numpy()
        assert [text.decode() for text in decoded] == texts
    none = pieces.decode(encoded[0].to_tensor(), encoded[0].row_lengths()).numpy()[0]
    assert none == b"Je vois, 25 et."


def test_subwords_are_dropped_on_both_sides_independently(pieces):
    text = tf.constant(["Le chat noir mange."])

    def encode(seed, dropout=0.4):
        sides = sources.encode_pairs(
            *(pieces, pieces, text, text), subword_dropout=dropout, seed=tf.constant([seed, 0])
        )
        return [side.to_list()[0] for side in sides]

    (plain, same), drawn = encode(0, dropout=0.0), [encode(seed) for seed in range(6)]
    assert plain == same and all(source != target for source, target in drawn)
    for side in (0, 1):
        assert len({tuple(pair[side]) for pair in drawn}) > 3
        for ids in (pair[side] for pair in drawn):
            decoded = pieces.decode(tf.constant([ids]), tf.constant([len(ids)]))
            assert decoded.numpy()[0] == b"Le chat noir mange."


def test_the_source_of_a_model_keeps_what_decoding_needs(pieces):
    source = sources.encode_source(
        pieces,
        tf.constant(["LE CHAT 25", "Le chat 25 dort.", " ", "x " * 99, "x" * 999]),
        max_length=24,
        kinds=KINDS,
    )
    assert source.loud.numpy().tolist() == [True, False, False, False, False]
    assert source.truncated.numpy().tolist() == [False, False, False, True, True]
    assert source.length.numpy().tolist()[2:4] == [0, 25]
    texts = source.decode(pieces, source.ids, tf.maximum(source.length - 1, 0)).numpy()
    assert texts[:3].tolist() == [b"LE CHAT 25", b"Le chat 25 dort.", b""]
    both = source.repeat(2)
    assert both.length.numpy().tolist()[:4] == [*source.length.numpy()[[0, 0, 1, 1]]]


def test_kinds_are_chosen_by_what_stands_on_both_sides(pieces):
    numbers = [(f"Il a {k} ans.", f"He is {k} years old.") for k in range(10, 70)] * 2
    names = [("Hier Grossvater schlief", "Yesterday grandfather slept")] * 50
    assert sources.choose_kinds(data.as_dataset(numbers + names), pieces, pieces) == (
        ("links", "numbers"),
        120,
    )
    assert sources.choose_kinds(data.as_dataset(numbers[:50]), pieces, pieces) == ((), 50)
