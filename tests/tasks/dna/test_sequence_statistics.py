from tasks.dna import sequence_statistics
from tasks.dna.genes import Gene, Record
from tasks.dna.grammar import make_grammar
from tasks.dna.nucleotides import encode
from tasks.dna.paths import EncodedRecords
from tasks.dna.sequence_statistics import REACH, WORDS, words_of
from tests.tasks.own.dna import complement, spliced_record

import numpy as np

GRAMMAR = make_grammar(("ATG",))


def test_words_are_numbered_by_their_bases():
    bases = encode("AAAAACGNACGTTTT")[None]
    words = words_of(bases).numpy()[0].tolist()
    assert words[:8] == [4096] * 5 + [1, 6, 4096] and words[13] == 0b000110111111


def test_scores_separate_coding_from_other_dna_on_both_strands():
    rows = [spliced_record(np.random.default_rng(n), str(n), genes_wanted=3) for n in range(20)]
    encoded = EncodedRecords(rows, GRAMMAR)
    words = sequence_statistics.word_scores(encoded)
    motifs = sequence_statistics.motif_scores(encoded)
    turned = [
        Record(r.name, complement(r.sequence), tuple(g.mirrored(len(r.sequence)) for g in r.genes))
        for r in rows
    ]
    other = EncodedRecords(turned, GRAMMAR)
    np.testing.assert_allclose(sequence_statistics.word_scores(other), words, atol=1e-5)
    np.testing.assert_allclose(sequence_statistics.motif_scores(other), motifs, atol=1e-5)
    channel = {name: n for n, name in enumerate(GRAMMAR.strand_channels)}
    number = {w: int(words_of(encode(w)[None])[0, -1]) for w in ("GCCGCC", "ATTATT")}
    for context in ("C0", "C1", "C2"):
        assert words[number["GCCGCC"], channel[context]] > 0.5
        assert words[number["ATTATT"], channel[context]] < -0.5
    assert words[number["ATTATT"], channel["I0"]] == words[number["ATTATT"], channel["I2"]] > 0
    assert not words[WORDS].any() and not words[:, channel["donor"]].any()
    fractions = np.zeros(4)
    for record in rows:
        for sequence in (record.sequence, complement(record.sequence)):
            fractions += [sequence.count(letter) for letter in "ACGT"]
    fractions /= fractions.sum()
    donor = motifs[REACH, :, channel["donor"]]  # always G, 60 times in 20 records
    np.testing.assert_allclose(donor[2], np.log(61 / 64 / fractions[2]), atol=1e-5)
    np.testing.assert_allclose(donor[0], np.log(1 / 64 / fractions[0]), atol=1e-5)
    assert not motifs[:, :, channel["C0"]].any()
    assert not motifs[: REACH - 4, :, channel["donor"]].any()


def test_transitions_and_edges_are_counted_on_both_strands():
    record = Record("r", "CATGGCCTAAC", (Gene(((1, 10),), 1),))
    encoded = EncodedRecords(
        [record, Record("edge", "ATGGCCGC", (Gene(((0, 8),), 1, True, False),))], GRAMMAR
    )
    counts = sequence_statistics.transition_counts(encoded)
    state = GRAMMAR.index
    assert counts.sum() == 2 * (10 + 7)
    assert counts[state["."], state["S1"]] == counts[state["S1'"], state["."]] == 1
    assert counts[state["S1"], state["S2"]] == counts[state["S2'"], state["S1'"]] == 2
    first, last = np.exp(sequence_statistics.edge_scores(encoded))
    # Four strands and one pseudocount over 67 states.
    np.testing.assert_allclose(first[state["."]], (2 + 1 / 67) / 5, rtol=1e-5)
    np.testing.assert_allclose(first[state["S1"]], (1 + 1 / 67) / 5, rtol=1e-5)
    np.testing.assert_allclose(last[state["S1'"]], (1 + 1 / 67) / 5, rtol=1e-5)
    np.testing.assert_allclose([first.sum(), last.sum()], 1.0, rtol=1e-5)
