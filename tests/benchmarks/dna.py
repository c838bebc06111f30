"""Bacterial gene finding compared with Prodigal, on the same genome, scored by the same code.

    pip install -e '.[dna,bench]'
    python -m tests.benchmarks.dna --model saved_models/dna
    python -m tests.benchmarks.dna --model saved_models/dna --split validation

Pyrodigal (Prodigal as a library) learns from the genome that it labels, without its annotation. The
model was trained on another genome, with annotation. The last line is one JSON object.
"""

import argparse
import json
import time
from pathlib import Path

from common.commands import report
from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.serving.served import load_export
from tasks.dna import data, evaluate, streaming
from tasks.dna.genes import Gene
from tasks.dna.paths import genes_of


def prodigal(sequence):
    """Find genes by pyrodigal, whose ranges are 1-based, inclusive, and hold the stop codon."""
    import pyrodigal

    finder = pyrodigal.GeneFinder()
    finder.train(sequence.encode())
    genes = []
    for gene in finder.find_genes(sequence.encode()):
        left, right = not gene.partial_begin, not gene.partial_end
        genes.append(
            Gene(
                exons=((gene.begin - 1, gene.end),),
                strand=gene.strand,
                has_start=left if gene.strand == 1 else right,
                has_stop=right if gene.strand == 1 else left,
            )
        )
    return genes


def everything_is_coding(size):
    """Return one gene without a stop codon over the whole record, on each strand."""
    return [Gene(((0, size),), strand, False, False) for strand in (1, -1)]


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.dna",
        description="Compare gene finding with Prodigal.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, default=Path("saved_models/dna"), help="export to score"
    )
    parser.add_argument("--dataset", default="bacteria", help="data set to score on")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split to score")
    parser.add_argument("--manual_dir", type=Path, help="folder of files downloaded by hand")
    parser.add_argument("--data_dir", type=Path, help="folder of prepared data sets")
    options = parser.parse_args()
    source = EvaluateConfig(
        dataset=options.dataset, manual_dir=options.manual_dir, data_dir=options.data_dir
    )
    records = data.records(data.load(source, seed=1).splits[options.split])
    served = load_export(options.model)
    grammar = streaming.grammar_of(served)
    tallies = {name: evaluate.Tally() for name in ("ours", "prodigal", "everything is coding")}
    seconds = dict.fromkeys(tallies, 0.0)
    for record in records:
        start = time.perf_counter()
        ((_, states),) = streaming.predict_paths(served, [record.sequence], batch_size=1)
        predicted = {"ours": genes_of(grammar, states)}
        seconds["ours"] += time.perf_counter() - start
        start = time.perf_counter()
        predicted["prodigal"] = prodigal(record.sequence)
        seconds["prodigal"] += time.perf_counter() - start
        predicted["everything is coding"] = everything_is_coding(len(record.sequence))
        for name, genes in predicted.items():
            tallies[name].add(record.genes, genes, len(record.sequence))
    best = evaluate.ceiling(records, grammar)
    rows = [
        {"finder": name, **tally.metrics(), "seconds": round(seconds[name], 1)}
        for name, tally in tallies.items()
    ]
    print(report.table([*rows, {"finder": "perfect labels", **best, "seconds": ""}]))
    for name in ("ours", "prodigal"):
        print(f"\n{name}\n{report.table(tallies[name].rows())}")
    result = {name: tally.metrics() for name, tally in tallies.items()}
    print(json.dumps({"dataset": options.dataset, "split": options.split, **result}))


if __name__ == "__main__":
    main()
