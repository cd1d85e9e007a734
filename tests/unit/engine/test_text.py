"""Text to words: the engine against the oracle and against answers derived by hand."""

from importlib.metadata import metadata

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from crochet_tasks.engine.text import UNICODE, portions, sentences
from tests.support import oracle
from tests.support.strategies import corpora, examples, unicode_texts


@examples(300)
@given(unicode_texts())
def test_words_of_any_text_are_those_of_the_oracle(text: str) -> None:
    """Whatever the text, the words are those of the oracle."""
    assert sentences(text) == oracle.sentences(text)


@examples(50)
@given(corpora())
def test_words_are_those_of_the_oracle_across_gaps_and_sentence_ends(texts: list[str]) -> None:
    """In text made of words, gaps and sentence ends of every kind the words are those of the oracle."""
    for text in texts:
        assert sentences(text) == oracle.sentences(text)


@examples(100)
@given(unicode_texts(), integers(0, 9))
def test_a_text_read_in_portions_has_the_same_sentences(text: str, size: int) -> None:
    """Read in portions, a text has the same sentences."""
    pieces = list(portions(text, size))
    assert "".join(pieces) == text
    assert [words for piece in pieces for words in sentences(piece)] == oracle.sentences(text)


def test_every_character_is_kept_or_cut_as_the_oracle_does() -> None:
    """Every character of the first two planes, between letters and alone, is kept or cut as the oracle does it."""
    for first in range(0, 0x20000, 0x1000):
        text = "".join(f"x{char}y {char} " for char in map(chr, range(first, first + 0x1000)))
        assert sentences(text) == oracle.sentences(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="no text"),
        pytest.param(" .?! \n\n 7 -- '' ;", [], id="no words"),
        pytest.param("In the beginning, God.", [["in", "the", "beginning"], ["god"]], id="two sentences"),
        pytest.param("a.b?c!d;e,f", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]], id="every sentence end"),
        pytest.param("a: b (c) \N{EM DASH} d-e_f 1g2", [["a", "b", "c", "d", "e", "f", "g"]], id="separators"),
        pytest.param("a\nb\n\nc\n \t\nd", [["a", "b"], ["c"], ["d"]], id="blank lines"),
        pytest.param("a\r\nb\r\n\r\nc\rd\r\re", [["a", "b"], ["c", "d"], ["e"]], id="CRLF and CR"),
        pytest.param("a\n-\nb", [["a", "b"]], id="a line with a dash is not blank"),
        pytest.param("It\u2019s the angels\u2019 'twas ' o''o", [["it's", "the", "angels'", "'twas", "o''o"]], id="'"),
        pytest.param("E\u0301 \u00c9 e\u0301", [["\u00e9", "\u00e9", "\u00e9"]], id="NFC and lower case"),
        pytest.param("a\u037eb", [["a"], ["b"]], id="NFC makes the Greek question mark a semicolon"),
        pytest.param("\u0391\u03a3 \u0391\u03a3:\u0391 \u03a3", [["ας", "ας", "α", "σ"]], id="final sigma"),
        pytest.param("\u0301 \u0301a", [["\u0301a"]], id="a mark alone is no word"),
        pytest.param("a\u2028b\u2029c\x85d", [["a", "b"], ["c", "d"]], id="line and paragraph separators"),
        pytest.param("wait…what", [["wait"], ["what"]], id="ellipsis"),
        pytest.param("a\u200bb", [["a", "b"]], id="a zero width space is a space"),
        pytest.param("har\u00adbour", [["harbour"]], id="soft hyphen inside a word"),
        pytest.param("har\u00ad \n\tbour wall", [["harbour", "wall"]], id="word broken at a soft hyphen"),
        pytest.param("har\u00ad\n \nbour", [["har"], ["bour"]], id="a blank line after a soft hyphen"),
        pytest.param("har\u00ad\ufeff\r\nbour", [["harbour"]], id="an invisible character at the end of a line"),
        pytest.param("\ufeffthe se\u2060a", [["the", "sea"]], id="byte order mark and word joiner"),
        pytest.param("H\u0331 \u1e96", [["\u1e96", "\u1e96"]], id="NFC once more after lower-casing"),
        pytest.param("a\x1cb \n\x1c\n c", [["a", "b", "c"]], id="a separator that is no white space"),
        pytest.param("a\u0387b", [["a", "b"]], id="NFC makes the Greek ano teleia a middle dot"),
        pytest.param("\U000323b0\U00016d40", [["\U000323b0\U00016d40"]], id="letters newer than this Python's table"),
    ],
)
def test_texts_made_by_hand_are_split_by_the_rules(text: str, expected: list[list[str]]) -> None:
    """Hand-made text is split by the letter of the rules."""
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("script", "text", "expected"),
    [
        ("Latin", "El muelle, ¿y el faro? ¡Sí!", [["el", "muelle"], ["y", "el", "faro"], ["sí"]]),
        ("Greek", "Το λιμάνι· ο Οδυσσεύς; Η ΑΚΤΗΣ.", [["το", "λιμάνι", "ο", "οδυσσεύς"], ["η", "ακτης"]]),
        ("Cyrillic", "Маяк — и гавань. Ночь…тишина", [["маяк", "и", "гавань"], ["ночь"], ["тишина"]]),
        ("Hebrew", "הנמל׃ הַיָּם, והאור", [["הנמל"], ["הַיָּם"], ["והאור"]]),
        ("Arabic", "الميناء، والبحر؟ نعم؛ المنارة۔", [["الميناء"], ["والبحر"], ["نعم"], ["المنارة"]]),
        ("Persian", "می\u200cآید؛ کشتی‌ها", [["می" + "آید"], ["کشتیها"]]),
        ("Devanagari", "बंदरगाह और समुद्र। प्रकाश॥ १२ नाव", [["बंदरगाह", "और", "समुद्र"], ["प्रकाश"], ["नाव"]]),
        ("Ethiopic", "ወደብ፡እና፡ባሕር። ብርሃን፣ መርከብ፧", [["ወደብ", "እና", "ባሕር"], ["ብርሃን"], ["መርከብ"]]),
        ("Chinese", "港口，灯塔。船！“海”：岸", [["港口"], ["灯塔"], ["船"], ["海", "岸"]]),
        ("Japanese", "港と海、灯台。船？", [["港と海"], ["灯台"], ["船"]]),
        ("Armenian", "Նավահանգիստ։ Ծով", [["նավահանգիստ"], ["ծով"]]),
        ("Khmer", "កំពង់ផែ។ សមុទ្រ", [["កំពង់ផែ"], ["សមុទ្រ"]]),
    ],
)
def test_sentences_of_every_script_end_by_its_own_punctuation(
    script: str, text: str, expected: list[list[str]]
) -> None:
    """In every script sentences end where its own punctuation says."""
    assert sentences(text) == oracle.sentences(text) == expected


def test_the_unicode_version_is_that_of_the_pinned_package() -> None:
    """Another version of `regex` may know other letters: then READING changes, and with it what a corpus takes."""
    description = metadata("regex")["Description"]
    assert f"This module supports Unicode {UNICODE}." in description
