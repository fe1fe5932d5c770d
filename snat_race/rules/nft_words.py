"""What a rule of nft says in words, as the statements that its JSON would have. Pure.

nft has no JSON for an anonymous chain, ``jump { ... }``: versions 1.0.2 to 1.1.7 put its text there. It has
none for what a target of iptables says either: it only names the target. Text is read here for these two.
What asks for the packet's source, destination, protocol, ports or device is read, and so are jumps and
translations. What else a rule asks for only makes it fit fewer packets, and is passed over.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r'"[^"\n]*"|[\n;{}]|[^\s;{}"]+')
_BLANK = re.compile(r"[ \t]*")
_HANDLE = re.compile(r"\s+# handle [0-9]+$")  # of a rule in an anonymous chain: nft 1.0.2
_VERDICTS = ("jump", "goto")
_TRANSLATIONS = ("masquerade", "snat")
_FLAG_WORDS = frozenset({"random", "fully-random", "persistent"})
_DEEPEST = 16  # NFT_JUMP_STACK_SIZE of the kernel: it follows no more jumps than that
_PORT_PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "dccp", "th")
_FIELDS = {
    **{("ip", field): ("ip", field) for field in ("saddr", "daddr", "protocol")},
    **{("ip6", field): ("ip6", field) for field in ("saddr", "daddr", "nexthdr")},
    **{(kind, field): (kind, field) for kind in _PORT_PROTOCOLS for field in ("sport", "dport")},
}
_META = ("oifname", "iifname", "oif", "iif")
# Behind these, a field is not the packet's own, or not all that is asked for.
_OF_ANOTHER = frozenset({".", "original", "reply", "vxlan", "geneve", "gre", "gretap"})
_NUMBER = re.compile(r"[0-9]{1,18}")
_NETWORK = re.compile(r"([0-9a-fA-F.:]+)/([0-9]{1,3})")
_RANGE = re.compile(r"([0-9a-fA-F.:]+)-([0-9a-fA-F.:]+)")
_VALUE = re.compile(r"@\S+|[a-fA-F]*[0-9:][0-9a-fA-F.:/-]*")
_PROTOCOL_VALUE = re.compile(r"(?!v?map$|set$)[a-z][a-z0-9-]*")
_ANONYMOUS = re.compile(r"(jump|goto)\s*\{")
_PORTS = re.compile(r":([0-9]{1,5})(?:-([0-9]{1,5}))?")
_TO = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+)(:[0-9]{1,5}(?:-[0-9]{1,5})?)")

Statement = dict[str, Any]
_Token = str | list[Any]
"""A word; or what is in braces: a set has a list of words, an anonymous chain one of rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordedRule:
    """One rule."""

    text: str  # without its handle; without the rules of an anonymous chain that it leads to
    statements: tuple[Statement, ...]  # those that are known here, as JSON has them
    comment: str
    understood: bool  # whether it certainly translates no sources in another way than its statements say
    inside: tuple["WordedRule", ...] = ()  # the rules of its anonymous chain, and of those in there


class _NotWords(Exception):
    """A text is not as nft prints it."""


def anonymous_chain(text: str) -> WordedRule | None:
    """Return the rule that ``jump { ... }`` or ``goto { ... }`` is, None if the text is no such thing."""
    return worded(text) if _ANONYMOUS.match(text) else None


def worded(text: str) -> WordedRule | None:
    """Return a rule, given as nft prints it; None if it is none, or several."""
    try:
        tokens = list(_tokens(text))
        rules, end = _rules(text, tokens, 0, 0)
    except _NotWords:
        return None
    return rules[0] if len(rules) == 1 and end == len(tokens) else None


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while (at := _end_of_blank(text, at)) < len(text):
        token = _TOKEN.match(text, at)
        if not token:
            raise _NotWords
        yield token
        at = token.end()


def _end_of_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _rules(text: str, tokens: Sequence[re.Match[str]], at: int, depth: int) -> tuple[list[WordedRule], int]:
    """Return the rules from a token on, and where they end: behind the text, or at a brace."""
    if depth > _DEEPEST:
        raise _NotWords
    rules: list[WordedRule] = []
    words: list[_Token] = []
    inside: list[WordedRule] = []
    start = end = None  # of the rule's own text
    while True:
        mark = tokens[at][0] if at < len(tokens) else "}"
        if mark in ("\n", ";", "}"):
            if words and start is not None and end is not None:
                own_text = _HANDLE.sub("", text[start:end])
                rules.append(_rule(own_text, _without_handle(words), inside))
            words, inside, start, end = [], [], None, None
            if mark == "}":
                return rules, at
        elif mark == "{" and words and words[-1] in _VERDICTS:
            inner, at = _rules(text, tokens, at + 1, depth + 1)
            if at >= len(tokens):
                raise _NotWords
            words.append([])
            inside += [part for rule in inner for part in (rule, *rule.inside)]
        elif mark == "{":
            start = tokens[at].start() if start is None else start
            members, at = _set(tokens, at + 1)
            words.append(members)
            end = tokens[at].end()
        else:
            start = tokens[at].start() if start is None else start
            words.append(mark)
            end = tokens[at].end()
        at += 1


def _set(tokens: Sequence[re.Match[str]], at: int) -> tuple[list[str], int]:
    """Return the words of a set, and where its brace is closed."""
    first, depth = at, 1
    while at < len(tokens):
        depth += {"{": 1, "}": -1}.get(tokens[at][0], 0)
        if not depth:
            return [token[0] for token in tokens[first:at]], at
        at += 1
    raise _NotWords


def _without_handle(words: list[_Token]) -> list[_Token]:
    return words[:-3] if words[-3:-1] == ["#", "handle"] else words


def _rule(text: str, words: list[_Token], inside: Sequence[WordedRule]) -> WordedRule:
    comment = ""
    if len(words) > 2 and words[-2] == "comment" and isinstance(words[-1], str):
        comment = words[-1].strip('"')
        words = words[:-2]
    at = next((at for at in range(len(words)) if _translates(words, at)), len(words))
    statements = list(_matches(words[:at]))
    understood = all(rule.understood for rule in inside)
    if at < len(words):
        translation = _translation(words[at:])
        statements += [translation] if translation else []
        understood = understood and translation is not None
    return WordedRule(
        text=text,
        statements=tuple(statements),
        comment=comment,
        understood=understood,
        inside=tuple(inside),
    )


def _translates(words: Sequence[_Token], at: int) -> bool:
    """Whether a translation begins at a word: 'snat' is a value too, of ``ct status``."""
    return words[at] in _TRANSLATIONS and (not at or words[at - 1] not in ("status", "!="))


def _matches(words: Sequence[_Token]) -> Iterator[Statement]:
    """Yield what words ask for, and where they lead, as far as it is known."""
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        following = words[at + 1 : at + 4]
        if isinstance(word, list):
            targets = [{verdict: {"target": name}} for verdict, name in _jumps(word)]
            if targets:
                yield {"vmap": {"data": {"set": targets}}}
        elif word in _VERDICTS and following and isinstance(following[0], str):
            yield {word: {"target": following[0]}}
        elif word == "vmap" and following and str(following[0]).startswith("@"):
            yield {"vmap": {"data": following[0]}}
        elif word == "xt":
            yield {"xt": None}
        elif isinstance(before, list) or before not in _OF_ANOTHER:
            yield from _match(word, following)


def _jumps(members: Sequence[str]) -> Iterator[tuple[str, str]]:
    for at, member in enumerate(members[:-1]):
        if member in _VERDICTS:
            yield member, members[at + 1].rstrip(",")


def _match(word: str, following: Sequence[_Token]) -> Iterator[Statement]:
    left: dict[str, Any]
    field = following[0] if following and isinstance(following[0], str) else ""
    if word == "meta" and field == "l4proto":
        left, following = {"meta": {"key": field}}, following[1:]
    elif known := _FIELDS.get((word, field)):
        left, following = {"payload": {"protocol": known[0], "field": known[1]}}, following[1:]
    elif word in _META:
        left = {"meta": {"key": word}}
    else:
        return
    operator = "=="
    if following and following[0] == "!=":
        operator, following = "!=", following[1:]
    right = (
        _value(following[0], of_protocol=field in ("l4proto", "protocol", "nexthdr")) if following else None
    )
    if right is not None and not (len(following) > 1 and following[1] == "."):
        yield {"match": {"op": operator, "left": left, "right": right}}


def _value(word: _Token, *, of_protocol: bool) -> Any:  # noqa: ANN401 - JSON
    """Return a value as JSON has it; None if it is none, but the next word of a longer expression."""
    if isinstance(word, list):
        members = [_value(member.rstrip(","), of_protocol=of_protocol) for member in word if member != ","]
        return {"set": members}
    if _NUMBER.fullmatch(word):
        return int(word)
    if word.startswith('"'):
        return word.strip('"')
    if shape := _NETWORK.fullmatch(word):
        return {"prefix": {"addr": shape[1], "len": int(shape[2])}}
    if shape := _RANGE.fullmatch(word):
        return {"range": [_value(end, of_protocol=False) for end in shape.groups()]}
    shape = (_PROTOCOL_VALUE if of_protocol else _VALUE).fullmatch(word)
    return word if shape else None


def _translation(words: Sequence[_Token]) -> Statement | None:
    """Return what the last words of a rule say of the source's translation; None if it is not known."""
    kind, *rest = words
    said: dict[str, Any] = {}
    if rest and isinstance(rest[-1], str) and set(rest[-1].split(",")) <= _FLAG_WORDS:
        said["flags"] = rest.pop()
        said["flags"] = said["flags"].split(",")
    if kind == "snat":
        if rest[:1] in (["ip"], ["ip6"]):
            said["family"] = rest.pop(0)
        if rest[:1] == ["prefix"]:
            said["type_flags"] = rest.pop(0)
        elif rest[:1] == ["interval"]:
            rest.pop(0)
    if not rest:
        return {str(kind): said or None} if kind == "masquerade" else None
    to, *target = rest
    if to != "to" or not target or any(word in _TRANSLATIONS for word in target if isinstance(word, str)):
        return None
    if kind == "masquerade":
        port = _ports(target[0]) if len(target) == 1 else None
        return {str(kind): said | {"port": port}} if port is not None else None
    return {str(kind): said | _address(target)}


def _address(target: Sequence[_Token]) -> dict[str, Any]:
    """Return the address, and the port if there is one, that ``snat to`` gives."""
    first = target[0]
    if len(target) == 3 and target[1] == ":" and isinstance(first, str):  # 192.0.2.4 : 30000-40000
        return {"addr": first.strip("[]"), "port": _ports(f":{target[2]}")}
    if len(target) == 1 and isinstance(first, str):
        if shape := _TO.fullmatch(first):
            return {"addr": shape[1].strip("[]"), "port": _ports(shape[2])}
        if (port := _ports(first)) is not None:
            return {"port": port}
        if shape := _RANGE.fullmatch(first):
            return {"addr": {"range": list(shape.groups())}}
        return {"addr": first.strip("[]")}
    return {"addr": {"words": list(target)}}


def _ports(word: _Token) -> Any:  # noqa: ANN401 - JSON
    shape = _PORTS.fullmatch(word) if isinstance(word, str) else None
    if not shape:
        return None
    return {"range": [int(shape[1]), int(shape[2])]} if shape[2] else int(shape[1])
