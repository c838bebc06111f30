"""The `evaluate` command and its metrics."""

import json

from common.errors import InputError
from tasks.translation import evaluate
from tests.tasks import commands
from tests.tasks.shipped import GOLDEN

import pytest
import sacrebleu

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("translation.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "bleu", "bleu_lowercase", "chrf"):
        assert result[name] == expected[name]


def test_own_files_are_scored_whole_with_all_references(capsys, shipped, tmp_path):
    golden = json.loads((GOLDEN / "translation.json").read_text(encoding="utf-8"))
    pairs = [(row["input"], row["answer"]) for row in golden[:12]]
    pairs[0] = (pairs[0][0], "Would you like to sing with me?")
    (tmp_path / "two.fr").write_text("".join(f"{s}\n{s}\n" for s, _ in pairs))
    (tmp_path / "two.en").write_text("".join(f"Nothing of it.\n{t}\n" for _, t in pairs))
    evaluate.main(["--model", str(shipped.path), "--data", str(tmp_path / "two.fr")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["examples"] == 12 and result["split"] == "all"
    translations = shipped.call("serving_default", text=[s for s, _ in pairs])["translation"]
    references = [["Nothing of it."] * 12, [t for _, t in pairs]]
    expected = sacrebleu.corpus_bleu([text.decode() for text in translations], references).score
    assert result["bleu"] == pytest.approx(expected) and 80 < expected < 100


def test_a_split_that_the_data_lacks_is_refused(trained, served, monkeypatch):
    monkeypatch.chdir(trained[0])
    with pytest.raises(InputError, match=r"my\.tsv has no split 'test_2017'"):
        evaluate.main(["--model", str(served.path), "--split", "test_2017"])


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_equal_sacrebleu_with_a_variable_number_of_references():
    translations = ["The cat sat on the mat.", "a dog ran away quickly today"]
    references = [
        ["The cat sat on a mat.", "The cat sat on the mat."],
        ["A dog ran away quickly today"],
    ]
    scores, signatures = evaluate.metrics(translations, references)
    columns = [[references[0][0], references[1][0]], [references[0][1], None]]
    assert scores["bleu"] == sacrebleu.corpus_bleu(translations, columns).score < 100
    assert scores["bleu_lowercase"] == pytest.approx(100.0)
    assert scores["chrf"] == sacrebleu.corpus_chrf(translations, columns).score
    assert "case:mixed" in signatures[0] and "tok:13a" in signatures[0]


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("私は昨日、東京で友達に会いました", "char"),
        ("东京是日本的首都。他们昨天到了", "zh"),
        ("ฉันอยากกินข้าวที่บ้านวันนี้", "char"),
        ("오늘은 집에 있어요 내일 만나요", "char"),
        ("ຂ້ອຍກິນເຂົ້າ", "char"),
        ("ខ្ញុំញ៉ាំបាយ", "char"),
        ("أنا في البيت اليوم", "13a"),
        ("मैं आज घर पर हूँ", "13a"),
        ("Le mot 東京 veut dire Tokyo.", "13a"),
        ("", "13a"),
    ],
)
def test_words_are_split_as_the_script_demands(text, tokenizer):
    assert evaluate.choose_tokenizer([[text]]) == tokenizer


def test_one_changed_character_is_a_small_error_in_any_script():
    for text in (
        "私は昨日、東京で友達に会いました。",
        "东京是日本的首都，也是最大的城市。",
        "ฉันอยากกินข้าวที่บ้าน",
    ):
        references = [[text]] * 50
        scores, _ = evaluate.metrics([text[:4] + "x" + text[5:]] * 50, references)
        assert scores["bleu"] > 60 and scores["chrf"] > 60
        assert evaluate.metrics([text] * 50, references)[0]["bleu"] == pytest.approx(100)


def test_targets_of_one_word_have_a_score_to_watch():
    """BLEU counts four words in a row, so it is 0 for them."""
    scores, _ = evaluate.metrics(["yes", "no"], [["yes"], ["none"]])
    assert scores["bleu"] == 0 and scores["chrf"] > 30
