from tasks.speech.words import find_words

import numpy as np
import tensorflow as tf

LETTERS = (" ", "a", "b", "c")


def reference(text, alignment, probabilities, step):
    """Return the words of one row by loops."""
    rows, place = [], 0
    for word in text.split():
        places = range(place, place + len(word))
        steps = [t for t, letter in enumerate(alignment) if letter in places]
        best = [
            max(
                probabilities[t, LETTERS.index(text[letter])]
                for t in range(len(alignment))
                if alignment[t] == letter
            )
            for letter in places
        ]
        confidence = np.exp(np.mean(np.log(best)))
        rows.append((word, steps[0] * step, (steps[-1] + 1) * step, confidence))
        place += len(word) + 1
    return rows


def test_words_have_the_steps_and_probabilities_of_their_letters():
    rng = np.random.default_rng(0)
    texts = ["ab c", "", "cab", "a b c abc"]
    tokens = np.full((4, 12), -1, np.int32)
    alignment = np.full((4, 30), -1, np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = [LETTERS.index(letter) for letter in text]
        steps = np.sort(rng.choice(30, 2 * len(text), replace=False))
        alignment[row, steps] = np.repeat(np.arange(len(text)), 2)
    probabilities = rng.uniform(0.01, 1.0, (4, 30, 5)).astype(np.float32)
    found = find_words(
        tf.constant(texts),
        tf.constant(tokens),
        tf.constant(alignment),
        tf.constant(probabilities),
        space=0,
        step_seconds=0.04,
    )
    found = {name: value.numpy() for name, value in found.items()}
    assert found["words"].shape == (4, 4)
    for row, text in enumerate(texts):
        expected = reference(text, alignment[row], probabilities[row], 0.04)
        assert found["words"][row].tolist() == [
            *(word.encode() for word, *_ in expected),
            *[b""] * (4 - len(expected)),
        ]
        values = np.array([row[1:] for row in expected]).reshape(-1, 3)
        for column, name in enumerate(("word_start", "word_end", "word_confidence")):
            np.testing.assert_allclose(
                found[name][row, : len(expected)], values[:, column], rtol=1e-4, atol=1e-6
            )
            assert not found[name][row, len(expected) :].any()


def test_texts_without_a_space_are_one_word():
    found = find_words(
        tf.constant(["ab"]),
        tf.constant([[0, 1]]),
        tf.constant([[0, -1, 1]]),
        tf.fill([1, 3, 3], 0.25),
        space=-1,
        step_seconds=1.0,
    )
    assert found["words"].numpy().tolist() == [[b"ab"]]
    assert found["word_end"].numpy().tolist() == [[3.0]]
    assert found["word_confidence"].numpy().round(4).tolist() == [[0.25]]
