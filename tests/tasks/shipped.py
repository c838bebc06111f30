"""The answers of the models in `saved_models/` to twenty fixed inputs each.

    python -m tests.tasks.shipped ner     # writes tests/golden/answers/ner.json; all: no name

Write a file anew only together with a new export. Answers are compact: genes and music by the runs
of their labels and keys. `probabilities` are those of the whole answer.
"""

import itertools
import json
import sys
from pathlib import Path

from common.serving.served import load_export, text_request
from common.serving.versions import SHIPPED
from tests.tasks.own.bacteria import bacterium
from tests.tasks.own.dna import fly_record, letters
from tests.tasks.own.music import CHORDS

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "answers"
# The models of the repository: each has a file of answers, a folder and a place in `models.config`.
# A variant of a task's model is named `<task>-<name>`.
NAMES = tuple(sorted(path.stem for path in GOLDEN.glob("*.json")))

SENTIMENT = """
A warm and funny film.
There is nothing to like in this movie.
The battery died after two days, and nobody answered my letters.
Not bad at all.
I have seen worse, but not often.
The acting is superb and the story moved me to tears.
It does what it says, no more and no less.
The council will meet again on Tuesday.
Terrible service, cold soup, rude waiter.
This is the best phone I have ever owned!
The second half drags a little.
I love this song :)
What a waste of an evening.
The plot is thin, yet the pictures are a joy.
He promised a lot and delivered nothing.
Easy to use and well made.
I would not recommend it to anyone.
The minister declined to comment.
Dull, dull, dull.
A small masterpiece.
"""
NER = """
Yesterday, Harry Potter met Hermione Granger.
Ada Lovelace lived in London.
The museum in Cairo opens at nine.
Lena Brandt flew from Oslo to Lisbon with Nordwind Airlines.
Nobody came.
The United Nations sent a delegate to Geneva.
My neighbour Tom plays for the Redfield Rovers.
In 1969 Neil Armstrong walked on the Moon.
The German train was late again.
She studies physics at the University of Vienna.
Apple opened a shop in Milan.
Paris Hilton was seen in Paris.
The river Danube flows through Budapest.
Doctor Amara Okafor wrote to the World Health Organization.
He reads Russian novels in French.
Where is Mr. Jones?
Bread, milk and two apples, please.
The Beatles came from Liverpool.
We drove from Chicago to New York in a Ford.
Prime Minister Sanna Virtanen visited Tokyo on Monday.
"""
TRANSLATION = """
Voulez-vous chanter avec moi?
Où est la gare ?
Je ne sais pas.
Il pleut depuis ce matin.
Ma sœur habite à Paris.
Combien coûte ce livre ?
Nous avons mangé du pain et du fromage.
Elle ne veut plus travailler ici.
Quelle heure est-il ?
Le chat dort sur la table.
Pouvez-vous m'aider, s'il vous plaît ?
J'ai perdu mes clés.
Tu as raison.
Ils sont partis sans dire un mot.
Cette maison est très ancienne.
Je voudrais un verre d'eau.
Le train part à 8 heures.
Personne n'est venu.
Il a acheté une voiture rouge.
Fermez la porte !
"""
ENGLISH = """
Do you want to sing with me?
Where is the station?
I don't know.
It has been raining since this morning.
My sister lives in Paris.
How much does this book cost?
We ate bread and cheese.
She doesn't want to work here any more.
What time is it?
The cat is sleeping on the table.
Can you help me, please?
I lost my keys.
You are right.
They left without saying a word.
This house is very old.
I would like a glass of water.
The train leaves at 8 o'clock.
Nobody came.
He bought a red car.
Close the door!
"""
SPEECH = """
the quick brown fox jumped over the lazy dog
turn on the light in the kitchen
call anna at nine
set the alarm for half past six
what is the weather in boston
play the next song
twenty three
send a message to paul
open the window please
the meeting is on the fourth of july
stop
how far is the station
spell the name
remind me to buy milk tomorrow
turn the radio off
zero one two three four
go to the second floor
the dog sleeps in the garden
yes
read me the news
"""


def task_of(name):
    """Return the task of a model of the repository; a variant is named `<task>-<name>`."""
    return name.partition("-")[0]


def signatures(name):
    """Return the golden file of a model's signatures, which depend on its network alone."""
    kind = "dna_frames" if name == "dna" else task_of(name)
    return GOLDEN.parent / f"{kind}.json"


def lines(text):
    """Return the lines of one of the lists above."""
    return text.strip().splitlines()


def runs(labels):
    """Return the runs of equal labels, such as `12. 300C`."""
    return " ".join(f"{len([*group])}{label}" for label, group in itertools.groupby(labels))


def sequences():
    """Return DNA: four short sequences, random ones, and parts of a bacterium."""
    random = np.random.default_rng(29)
    rows = ["AGCCCCTGTGAGGAACTAG", "ATGAAATAA", "NNNNNNNN", "ACGTRYACGT"]
    rows += [letters(random, 300) for _ in range(4)]
    return rows + [bacterium(random, genes_wanted=1 + n % 3).sequence for n in range(12)]


def spliced_sequences():
    """Return DNA: the first eight of `sequences`, and genes of three exons."""
    random = np.random.default_rng(30)
    genes = [fly_record(random, genes_wanted=1 + n % 2).sequence for n in range(12)]
    return sequences()[:8] + genes


def primes():
    """Return 20 piano rolls of four frames: a chord in five keys."""
    rows = np.zeros((20, 4, 88), np.float32)
    for number, (name, shift) in enumerate(itertools.product(CHORDS, range(5))):
        rows[number][:, np.array(CHORDS[name]) + shift] = 1
    return rows


# --- The answers of each task ---------------------------------------------------------------------


def of_sentiment(served):
    texts = lines(SENTIMENT)
    outputs = served.call("serving_default", **text_request(texts))
    for text, stars, probabilities in zip(
        texts, outputs["stars"], outputs["probabilities"], strict=True
    ):
        yield text, int(stars), probabilities


def of_ner(served):
    texts = lines(NER)
    outputs = served.call("serving_default", **text_request(texts))
    for row, text in enumerate(texts):
        count = outputs["length"][row]
        tags = b" ".join(outputs["tags"][row, :count]).decode()
        yield text, tags, outputs["confidence"][row, :count]


def _of_translation(served, texts):
    outputs = served.call("serving_default", **text_request(texts))
    for text, translation, score in zip(
        texts, outputs["translation"], outputs["score"], strict=True
    ):
        yield text, translation.decode(), np.exp(score[None])


def of_translation(served):
    yield from _of_translation(served, lines(TRANSLATION))


def of_translation_en_fr(served):
    yield from _of_translation(served, lines(ENGLISH))


def of_dna(served):
    yield from _of_dna(served, sequences())


def of_dna_drosophila(served):
    yield from _of_dna(served, spliced_sequences())


def _of_dna(served, rows):
    for number, sequence in enumerate(rows):
        outputs = served.call("serving_default", sequence=np.array([sequence], object))
        labels = outputs["labels"][0].decode()
        yield f"sequence {number}", runs(labels), outputs["probabilities"][0].mean(axis=0)


def of_music(served):
    rows, ones = primes(), np.ones(20)
    outputs = served.call(
        "serving_default",
        prime=rows,
        prime_length=4 * ones,
        steps=8 * ones,
        temperature=0 * ones,
        top_p=ones,
        seed=np.zeros((20, 2)),
    )
    notes = outputs["notes"] + (outputs["onsets"] * outputs["notes"])
    scored = served.call("tensors", notes=notes, length=12 * ones)
    for number, piece in enumerate(outputs["notes"][:, 4:]):
        keys = [".".join(map(str, np.flatnonzero(frame))) for frame in piece]
        probability = np.exp(-scored["nll"][number].mean())
        yield f"prime {number}", " ".join(keys), probability[None]


def of_speech(served):
    from tasks.speech import audio
    from tasks.speech.voices import Voice, speak

    texts = lines(SPEECH)
    sounds = [*speak([(text, Voice("pico", "en-US")) for text in texts])]
    outputs = served.call("serving_default", **audio.request(sounds))
    for text, heard, confidence in zip(texts, outputs["text"], outputs["confidence"], strict=True):
        yield text, heard.decode(), confidence[None]


def of_video(served):
    from tasks.video import clips, gaits

    for number, activity in zip(range(20), itertools.cycle(gaits.ACTIVITIES), strict=False):
        frames = gaits.clip(activity, 1000 + number, 0, rate=12.5, size=64)
        outputs = served.call("serving_default", **clips.clip_request([frames], [12.5]))
        name = f"{activity} of person {1000 + number}"
        yield name, outputs["activity"][0].decode(), outputs["probabilities"][0]


ANSWERS = {
    "sentiment": of_sentiment,
    "ner": of_ner,
    "translation": of_translation,
    "translation-en-fr": of_translation_en_fr,
    "dna": of_dna,
    "dna-drosophila": of_dna_drosophila,
    "music": of_music,
    "speech": of_speech,
    "video": of_video,
}


def answers(name):
    """Return the answers of a model: `input`, `answer` and `probabilities` of each."""
    served = load_export(SHIPPED / name / "1")
    return [
        {
            "input": given,
            "answer": answer,
            "probabilities": [round(float(p), 6) for p in np.atleast_1d(probabilities)],
        }
        for given, answer, probabilities in ANSWERS[name](served)
    ]


def main(names):
    """Write the golden files of some models, or of all that are in the repository."""
    for name in names or NAMES:
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in answers(name))
        (GOLDEN / f"{name}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
