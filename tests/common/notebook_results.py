"""Checks of the results that the texts of the notebooks state.

Each takes what the notebook and its solutions printed.
"""

import re


def numbers(pattern, text):
    """Return the numbers that a pattern's groups match, one row for each match."""
    found = [match if isinstance(match, tuple) else (match,) for match in re.findall(pattern, text)]
    assert found, pattern
    return [[float(value.replace(",", "")) for value in row] for row in found]


def check_attention(text):
    accuracies = re.findall(r"^(additive|dot) +attention: +(\S+)% of 500", text, re.M)
    assert len(accuracies) == 2 and all(float(percent) > 90 for _, percent in accuracies)
    apart = numbers(r"(?:in NumPy|contexts): (\S+) apart", text)
    assert len(apart) == 2 and max(apart)[0] < 1e-5
    changes = numbers(r"(?:changes the output by|weights changed by at most) ([^,\s]+)", text)
    assert len(changes) == 4 and max(changes)[0] < 1e-5
    assert len(numbers(r"(100)% of the outputs the same", text)) == 2
    year = numbers(r"(\d+)% on the end of the year; evenly spread: (\d+)%", text)
    assert all(weight > 2 * even for weight, even in year)


def check_beam_search(text):
    found = {
        name: float(probability)
        for name, probability in re.findall(r"^(greedy|beam \d) +.* \. (\S+)$", text, re.M)
    }
    best = numbers(r"(?m)^(?:[abc] )+\. (\S+)$", text)[0][0]
    assert found["greedy"] == found["beam 1"] < best / 100 and found["beam 2"] == best
    ((ours, official),) = numbers(r"BLEU by hand ([^,]+), by sacrebleu (\S+)", text)
    assert abs(ours - official) < 1e-3
    row = r"{} +([^:]+): log-probability +([^,]+), (\S+) words, brevity penalty ([^,]+), BLEU (\S+)"
    widths = numbers(row.format("beam"), text)
    assert [width for width, *_ in widths] == [1, 2, 4, 8, 16]
    likelihoods = [likelihood for _, likelihood, *_ in widths]
    assert likelihoods == sorted(likelihoods)
    assert widths[-1][2] < widths[0][2] and widths[3][4] > widths[0][4]
    alphas = numbers(row.format("alpha"), text)
    lengths = [length for _, _, length, *_ in alphas]
    assert lengths == sorted(lengths) and max(alphas, key=lambda alpha: alpha[4])[0] > 0
    greedy, tuned = numbers(r"test, .*: BLEU (\S+)", text)
    assert tuned > greedy
    assert numbers(r"less probable: (\d+) of", text)[0][0] < 8


def check_bidirectional_and_deep(text):
    row = r"^(forwards|backwards|both) +(\S+)% of the \( right, +(\S+)% of the \)"
    right = {way: (float(a), float(b)) for way, a, b in re.findall(row, text, re.M)}
    assert right["forwards"][0] < 93 < 95 < right["forwards"][1]
    assert right["backwards"][1] < 93 < 95 < right["backwards"][0]
    assert min(right["both"]) > 95
    depth = dict(re.findall(r"^((?:one|two) layers?, \S+).*? (\S+)% of the blanks", text, re.M))
    assert float(depth["one layer, 24"]) < 90 and float(depth["two layers, forwards"]) < 90
    assert float(depth["two layers, 12"]) > 95
    assert numbers(r"largest difference from the layer: (\S+)", text)[0][0] < 1e-5
    ((marks, blanks),) = numbers(r"update gate: (\S+) at marks, (\S+) at blanks", text)
    assert marks < blanks


def check_crf(text):
    for ours, theirs in numbers(r"enumeration (\S+), common\.crf (\S+)", text):
        assert abs(ours - theirs) < 1e-4
    for ours, theirs in numbers(r"forward (\S+), enumeration (\S+)", text):
        assert abs(ours - theirs) < 1e-4
    assert (
        len(set(re.findall(r"^(?:Viterbi by hand|common.crf|enumeration): +(.*)", text, re.M))) == 1
    )
    assert max(numbers(r"(\S+) apart", text))[0] < 1e-5
    row = r"(softmax|CRF|rules|marginal) +tags right \S+, F1 of names (\S+), .*tags (\S+)%"
    rows = {name: (float(f1), float(broken)) for name, f1, broken in re.findall(row, text)}
    assert rows["CRF"][1] == rows["rules"][1] == 0 < 10 < rows["softmax"][1]
    assert rows["softmax"][0] < rows["CRF"][0] > rows["rules"][0] and rows["marginal"][1] > 0


def check_ctc(text):
    for ours, theirs in numbers(r"enumeration (\S+), by common\.ctc (\S+)", text):
        assert abs(ours - theirs) < 1e-5
    for ours, theirs in numbers(r"algorithm: (\S+), enumeration: (\S+)", text):
        assert abs(ours - theirs) < 1e-5
    assert numbers(r"largest difference (\S+)", text)[0][0] < 1e-5
    best, *others = numbers(r"(?m)^'\w+' +(\S+) in +\d+ paths, the best one \S+ (\S+)", text)
    assert any(best[0] > total and best[1] < path for total, path in others)
    assert "greedy: ''" in text and "beam:   'a'" in text
    misses = dict(re.findall(r"(beam \d|greedy): (\d+) of 50", text))
    assert int(misses["greedy"]) > int(misses["beam 4"]) > int(misses["beam 8"]) == 0
    right = dict(numbers(r"pass +(\d+): .*, +(\d+)% of 100", text))
    assert right[1] < 10 and right[12] > 75
    assert all(ours == theirs for ours, theirs in numbers(r"(\d+) paths, formula (\d+)", text))
    assert "loss with 2 frames: [inf]" in text


def check_lags(text):
    rows = re.findall(
        r"^(plain RNN|GRU|LSTM|attention) +(growing lag|lag) +(\d+): +(\S+)% right", text, re.M
    )
    alone = {(name, int(lag)): float(value) for name, kind, lag, value in rows if kind == "lag"}
    growing = {(name, int(lag)): float(value) for name, kind, lag, value in rows if kind != "lag"}
    assert len(alone) == 16 and len(growing) == 12
    for lag in (5, 20, 50, 100):
        assert alone["attention", lag] > 95
    for name in ("plain RNN", "GRU", "LSTM"):
        assert alone[name, 5] > 95 and alone[name, 100] < 60
    assert alone["plain RNN", 20] < 60 and alone["GRU", 50] > 90 and alone["LSTM", 20] < 80
    assert min(growing["GRU", 100], growing["LSTM", 100]) > 95 and growing["plain RNN", 100] > 80
    second = dict(re.findall(r"^(GRU|attention.*?) *: +(\S+)% right after", text, re.M))
    assert float(second["attention"]) < 65 < 95 < float(second["GRU"])
    assert float(second["attention with positions"]) > 95
    changes = dict(re.findall(r"^(.*?) *: shuffling .* by (\S+)", text, re.M))
    assert float(changes["attention"]) < 1e-5 < 0.1 < float(changes["attention with positions"])
    assert numbers(r"open gate, lag 50: ([\d.]+)%", text)[0][0] > 95


def check_language_model(text):
    held_out = dict(numbers(r"order (\d): .*held-out perplexity +(\S+)", text))
    training = dict(numbers(r"order (\d): training perplexity +([^,]+)", text))
    assert training[1] > training[2] > training[3] > training[4]
    assert held_out[3] < held_out[4] and held_out[3] < held_out[2]
    passes = numbers(r"pass \d: training +([^,]+), held-out +(\S+)", text)
    assert passes[-1][1] < held_out[3] and passes[-1][0] > training[4]
    assert numbers(r"right order preferred: (\S+)%", text)[0][0] > 90
    row = r"temperature (\S+): +(\d+) different of 200, +(\d+)% copies .* perplexity +(\S+)"
    samples = {temperature: rest for temperature, *rest in numbers(row, text)}
    assert samples[0.0][0] == 1 and samples[0.5][1] > 75 > 40 > samples[1.5][1]
    assert samples[1.5][2] > 5 * samples[1.0][2]


def check_rnn_and_lstm_from_scratch(text):
    differences = numbers(r"difference(?: of any state)?:? (\d\S+e-\d+)", text)
    assert len(differences) == 8 and max(differences)[0] < 1e-5
    changed = dict(numbers(r"step +(\d+): states changed by (\S+)", text))
    assert all((value > 0) == (step >= 8) for step, value in changed.items())
    norms = {factor: first for factor, first in numbers(r"factor (\S+): .*step, (\S+) at", text)}
    assert norms[0.8] < 1e-3 < 1e3 < norms[1.2] < norms[1.5]
    row = r"(not clipped|clipped at norm 1): largest gradient norm (\d+), .*, (\S+) at the end"
    rows = {name: (int(norm), float(error)) for name, norm, error in re.findall(row, text)}
    assert rows["not clipped"][0] > 100 and rows["not clipped"][1] > 0.06
    assert rows["clipped at norm 1"][1] < 0.01
    assert len(set(re.findall(r"(?:difference quotient|backward pass) +(-?\d+\.\d{5})", text))) == 1


def check_sampling(text):
    groups = re.findall(r"^(.+?) +(\d+)% valid, (\d+) copies of \d+$", text, re.M)
    valid = {group: int(percent) for group, percent, _ in groups}
    assert valid["held-out tunes"] >= 90
    assert valid["shuffled characters"] < 10
    assert valid["written, temperature 0.5"] > 25
    assert valid["written, temperature 0.5"] > valid["written, temperature 1.0"]
    assert not any(int(copies) for _, _, copies in groups)


def check_sequence_types(text):
    row = r"^(dense|GRU), .*\n +phrase at place  1: (\S+)% right\n +phrase at place 21: (\S+)%"
    rows = {
        name: (float(first), float(moved)) for name, first, moved in re.findall(row, text, re.M)
    }
    assert rows["dense"][0] > 90 > 75 > rows["dense"][1]
    assert min(rows["GRU"]) > 90 and abs(rows["GRU"][0] - rows["GRU"][1]) < 1
    percentages = dict(re.findall(r"^(one to many|many to one|another length): (\S+)%", text, re.M))
    assert len(percentages) == 3 and min(map(float, percentages.values())) > 80
    assert numbers(r"(?m)^same length: F1 of the ends of words (\S+)$", text)[0][0] > 0.75
    shown = re.findall(r"^ +(French|English) taken for (French|English): ", text, re.M)
    assert all(true != predicted for true, predicted in shown)


def check_transfer(text):
    row = r"^(transfer|shuffled|words), (\d+) letters: (\S+)% right"
    right = {(kind, int(n)): float(percent) for kind, n, percent in re.findall(row, text, re.M)}
    assert len(right) == 12 and right["transfer", 16] > 90
    assert max(right["shuffled", 256], right["words", 256]) < 75


def check_trigger_words(text):
    rows = {
        threshold: rest
        for threshold, *rest in numbers(
            r"validation, threshold (\S+): +(\S+)% hit, +(\S+) false alarms a minute", text
        )
    }
    assert rows[0.1][0] > rows[0.9][0] > 75 and rows[0.1][1] > 5 * rows[0.9][1]
    ((_, hits, alarms),) = numbers(r"test, threshold (\S+): (\S+)% hit, (\S+) false", text)
    assert hits > 70 and alarms < 3
    assert numbers(r"between stream and clip: (\S+)", text)[0][0] < 1e-4
    detected = dict(re.findall(r"(ki-do|do-ki) detected in (\d+) of 100", text))
    assert int(detected["ki-do"]) > 80 > 20 > int(detected["do-ki"])


def check_vanishing_gradient(text):
    solved = dict(re.findall(r"^(plain RNN|GRU|LSTM) +(solved|not solved) after", text, re.M))
    assert solved == {"plain RNN": "not solved", "GRU": "solved", "LSTM": "solved"}
    norms = numbers(r"(?:RNN|GRU|LSTM) +(\S+) at the last step, (\S+) at the first", text)
    assert len(norms) == 3
    assert all(first < 1e-4 * last for last, first in norms)


def check_word_vectors(text):
    nearest = dict(re.findall(r"^(\w+) +-> (\w+) 0\.\d+, .*", text, re.M))
    assert nearest["monday"] and "france" in text
    assert "man is to king as woman is to queen" in text
    rows = {
        name: (int(a), int(b))
        for name, a, b in re.findall(r"(\w+) +(\d+)% right, +(\d+)% if the given", text)
    }
    assert rows["capitals"][0] > 70 and rows["plurals"][0] > 60 and rows["past"][0] < 50
    assert rows["opposites"][0] < 30 and all(a > b for a, b in rows.values())
    assert numbers(r"side guessed .*: (\S+)% right", text)[0][0] > 75


CHECKS = {
    name.removeprefix("check_"): check for name, check in globals().items() if "check_" in name
}
