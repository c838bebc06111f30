"""The command that rebuilds the language model of an export."""

import shutil

from common.errors import InputError
from common.serving.served import load_export
from tasks.speech import adapt, audio
from tests.tasks.speech.recordings import english

import numpy as np
import pytest


def test_an_export_gets_the_language_of_a_text(shipped, tmp_path, capsys):
    shutil.copytree(shipped.path, tmp_path / "speech" / "1")
    (tmp_path / "text").write_text("Seven seven.\n\n42\nseven\n")
    (tmp_path / "words").write_text("nine\n")
    words = ["--model", str(tmp_path / "speech"), "--lm_text", str(tmp_path / "text")]
    adapt.main([*words, "--words", str(tmp_path / "words"), "--lm_weight", "30", "--bonus", "0"])
    assert "speech/2" in capsys.readouterr().err
    export = load_export(tmp_path / "speech" / "2")
    assert export.settings["lm_weight"] == 30.0 and export.settings["bonus"] == 0.0
    sounds = [sound for _, sound in english()]
    request = audio.request(sounds)
    before, after = (model.call("tensors", **request) for model in (shipped, export))
    np.testing.assert_allclose(after["log_probs"], before["log_probs"], atol=1e-5)
    texts = export.call("serving_default", **request)["text"]
    # By this weight, nothing but the words of the text and of the list is heard.
    heard = {word for text in texts for word in text.decode().split()}
    assert heard and heard <= {"seven", "nine"}
    card = (tmp_path / "speech" / "2" / "model_card.md").read_text()
    assert "made of text and a word list (weight 30, bonus 0)" in card


def test_texts_keep_the_letters_that_the_model_knows(tmp_path):
    path = tmp_path / "text"
    path.write_text("Ab, c!\nxyz\nbäd\n")
    assert adapt.read_texts(path, (" ", "a", "b", "c")) == ["ab c", "b"]
    path.write_text("xyz\n")
    with pytest.raises(InputError, match="no letter that the model knows"):
        adapt.read_texts(path, ("a",))
    flags = adapt.Adapt(lm_text=path, words=path)
    assert list(adapt.sentences(flags, ("x", " "))) == ["x", *["x", " x "] * adapt.REPEATS]
