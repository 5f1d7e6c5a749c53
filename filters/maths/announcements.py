"""How a completion announces its answer: `####`, `the answer is`, `Answer:`, headings, and their likes in other languages."""

import re

_OTHER_ANSWER = (
    "respuesta|r\u00e9ponse|antwort|risposta|resposta|antwoord|odpowied\u017a|odpov\u011b\u010f|vastaus|svar|cevap|yan\u0131t"
    "|jawaban|\u0111\u00e1p \u00e1n|\u043e\u0442\u0432\u0435\u0442|\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c"
)
"""Answer in Spanish, French, German, Italian, Portuguese, Dutch, Polish, Czech, Finnish, Scandinavian languages, Turkish,
Indonesian, Vietnamese, Russian and Ukrainian."""
_GAP = "[ \\t]{0,3}"
_SPACE = "[ \\t]{1,3}"
_BOLD = "[*_]{0,3}"
_NAMED = rf"(?:the{_SPACE})?(?:final{_SPACE})?answer"
_HEADING = rf"^{_GAP}(?:\#{{1,6}}|\*\*|__){_GAP}(?:\*\*)?(?:(?:step{_SPACE})?\d{{1,2}}[.:)]{_GAP})?{_NAMED}{_GAP}:?{_GAP}"
MARKER = re.compile(
    rf"####{_GAP}(?!#)(?:{_NAMED}{_GAP}$)?"
    rf"|{_HEADING}(?:\*\*|__|\#{{1,6}})?{_GAP}:?{_GAP}$"
    rf"|^{_GAP}(?:the{_SPACE})?final{_SPACE}answer{_GAP}$"
    rf"|(?<![A-Za-z])(?:(?:final{_SPACE}|correct{_SPACE})?(?:answer|option|choice)|ans\.?)(?:{_SPACE}is)?"
    rf"{_GAP}{_BOLD}{_GAP}[:=\uff1a]{_GAP}{_BOLD}"
    rf"|\b(?:answer|correct{_SPACE}(?:option|choice)){_SPACE}(?:is|(?:would|will|should|must){_SPACE}be|equals)(?![A-Za-z])"
    rf"(?:,?{_SPACE}(?:equal{_SPACE}to|given{_SPACE}by))?{_GAP}{_BOLD}"
    rf"|\b(?:{_OTHER_ANSWER})(?:{_SPACE}(?:final|finale|correcta|correcte|correta|corretta))?{_GAP}{_BOLD}{_GAP}(?:"
    rf"(?:es|est|ist|lautet|is|l\u00e0|adalah|\u00e4r|er|on|\u00e8|\u00e9)(?!\w)(?:{_SPACE}(?:donc|also|somit|daher))?(?:{_GAP}:)?"
    rf"|:|[\u2014-](?=\s)){_GAP}{_BOLD}"
    rf"|(?:\u7b54\u6848|\u7b54\u3048)(?:\u5c31?\u662f|\u4e3a|\u70ba|\u306f|\uff1a|:)[\uff1a:]?{_GAP}{_BOLD}"
    rf"|\u7b54[\uff1a:]{_GAP}{_BOLD}|\u9009[\uff1a:]?{_GAP}(?=\(?[A-J](?![A-Za-z]))"
    rf"|\uc815?\ub2f5(?:\uc740|{_GAP}:){_GAP}{_BOLD}"
    rf"|\u0909\u0924\u094d\u0924\u0930{_GAP}(?:\u0939\u0948|:|(?=[\d$\\])){_GAP}{_BOLD}"
    rf"|(?:\u0627\u0644\u062c\u0648\u0627\u0628|\u0627\u0644\u0625\u062c\u0627\u0628\u0629)"
    rf"{_GAP}(?:\u0647\u0648|\u0647\u064a|:){_GAP}{_BOLD}",
    re.IGNORECASE | re.MULTILINE,
)
"""What stands before an answer. Space of more than three characters is none, so that a search takes linear time."""
_LEAD = 80
"""Most characters of a marker before the word or sign that it is searched by."""
_MARKED = (
    "answer", "####", "option", "choice", "ans:", "ans :", "ans=", "ans =", "ans.:",
    *(word for word in _OTHER_ANSWER.split("|") if word.isascii()),
)  # fmt: skip
_EVERYWHERE = (
    *_MARKED,
    *(word for word in _OTHER_ANSWER.split("|") if not word.isascii()), "\u7b54", "\u9009", "\ub2f5",
    "\u0909\u0924\u094d\u0924\u0930", "\u0627\u0644\u062c\u0648\u0627\u0628", "\u0627\u0644\u0625\u062c\u0627\u0628\u0629",
)  # fmt: skip
"""What every marker has, in lower case: in a text of ASCII, and in any."""


def first_mark(low: str) -> int:
    """Where the markers of a text in lower case may begin, -1 if it can have none: a few searches for strings."""
    marks = _MARKED if low.isascii() else _EVERYWHERE
    places = [place for place in map(low.find, marks) if place >= 0]
    return max(0, min(places) - _LEAD) if places else -1
