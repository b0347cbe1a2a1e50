"""The words of the phrase grammar, German to English.

Translations are written "words w | words w". Weights w are relative. Where an
alternative has two, the first is that of the formal register and the second of
the casual one. A single alternative has none.
"""

# By gender, since articles, adjectives and pronouns follow it; p is plural.
PERSONS = {
  "m": {
    "Mann": "man",
    "Lehrer": "teacher",
    "Arzt": "physician 6 1 | doctor 4 9",
    "Nachbar": "neighbour",
    "Bruder": "brother",
    "Chef": "manager 8 2 | boss 2 8",
  },
  "f": {
    "Frau": "woman 8 9 | lady 2 1",
    "Mutter": "mother 9 2 | mum 1 8",
    "Schwester": "sister",
    "Freundin": "friend",
  },
  "n": {"Kind": "child 9 4 | kid 1 6", "Baby": "baby"},
  "p": {
    "Kinder": "children 9 3 | kids 1 7",
    "Eltern": "parents",
    "Freunde": "friends 1 7 | companions 1 0.5",
  },
}
THINGS = {
  "m": {
    "Apfel": "apple",
    "Brief": "letter",
    "Hund": "dog",
    "Schlüssel": "key",
    "Kuchen": "cake",
  },
  "f": {
    "Zeitung": "newspaper 7 3 | paper 3 7",
    "Tasche": "bag",
    "Katze": "cat",
  },
  "n": {
    "Buch": "book",
    "Auto": "car 5 9 | automobile 5 0.5",
    "Haus": "house 7 8 | home 3 2",
    "Fahrrad": "bicycle 8 2 | bike 2 8",
    "Bild": "picture 6 8 | painting 4 2",
  },
}
ADJECTIVES = {
  "alt": "old",
  "klein": "small 7 4 | little 3 6",
  "groß": "large 8 1 | big 2 9",
  "schön": "beautiful 9 4 | lovely 1 6",
  "neu": "new",
}
FREQUENCIES = {
  "oft": "often 5 9 | frequently 5 1",
  "immer": "always",
  "manchmal": "sometimes 8 9 | occasionally 2 1",
}
TIMES = {
  "heute": "today",
  "am Abend": "in the evening",
  "am Wochenende": "at the weekend 6 4 | on the weekend 4 6",
  "jeden Tag": "every day 6 9 | daily 4 1",
}
PLACES = {
  "im Park": "in the park",
  "im Garten": "in the garden",
  "in der Stadt": "in the city 8 4 | in town 2 6",
  "in der Schule": "at school 7 | at the school 3",
  "zu Hause": "at home",
}
# Third person singular, plural, participle: base, -s, -ing, past, participle.
TRANSITIVE = {
  "kauft kaufen gekauft": (
    "buy/buys/buying/bought/bought 3 9"
    " | purchase/purchases/purchasing/purchased/purchased 7 1"
  ),
  "verkauft verkaufen verkauft": "sell/sells/selling/sold/sold",
  "sucht suchen gesucht": (
    "look for/looks for/looking for/looked for/looked for 5 9"
    " | seek/seeks/seeking/sought/sought 5 1"
  ),
  "findet finden gefunden": "find/finds/finding/found/found",
  "holt holen geholt": (
    "fetch/fetches/fetching/fetched/fetched 8 2 | get/gets/getting/got/got 2 8"
  ),
  "malt malen gemalt": (
    "paint/paints/painting/painted/painted 7 | draw/draws/drawing/drew/drawn 3"
  ),
}
INTRANSITIVE = {
  "singt singen gesungen": "sing/sings/singing/sang/sung",
  "arbeitet arbeiten gearbeitet": "work/works/working/worked/worked",
  "wartet warten gewartet": "wait/waits/waiting/waited/waited",
  "lacht lachen gelacht": "laugh/laughs/laughing/laughed/laughed",
  "spielt spielen gespielt": "play/plays/playing/played/played",
}

# Of the subject in German, by its gender: stem of the possessive, and pronoun.
POSSESSIVES = {"m": "sein", "f": "ihr", "n": "sein", "p": "ihr"}
PRONOUNS = {"m": "er", "f": "sie", "n": "es", "p": "sie"}
# In English, where a child ("n") is he, she or it throughout the sentence.
ENGLISH_PRONOUNS = {"m": "he", "f": "she", "it": "it", "p": "they"}
ENGLISH_POSSESSIVES = {"m": "his", "f": "her", "it": "its", "p": "their"}
POSSESSIVE_ENDINGS = {"m": "en", "f": "e", "n": ""}  # accusative

# English article and case to, by gender, the German article and the ending
# of an adjective after it.
ARTICLES = {
  ("the", "nominative"): {
    "m": "der e",
    "f": "die e",
    "n": "das e",
    "p": "die en",
  },
  ("the", "accusative"): {"m": "den en", "f": "die e", "n": "das e"},
  ("a", "nominative"): {"m": "ein er", "f": "eine e", "n": "ein es"},
  ("a", "accusative"): {"m": "einen en", "f": "eine e", "n": "ein es"},
}
ADJECTIVE_ENDINGS = ("e", "en", "er", "es")

BECAUSE = "because 6 9 | since 2 1 | as 2 0.5"
WITH = "with 8 | together with 2"
