"""Rulesets as hosts may have them, made of a seed: what ``mitigate`` must leave as it found it.

Each is a script for one tool, with exposed SNAT rules and others among them: copies, rules that are random
already, comments of all kinds, jumps, sets, counters.
"""

import random
from collections.abc import Iterator

TOOLS = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy", "nft")
_WORDS = (
    "a",
    "-j",
    "--random",
    "MASQUERADE",
    "it's",
    'say "x"',
    "back\\slash",
    "# handle 3",
    "{ }",
    "é",
    "$x",
)


def script(tool: str, seed: int) -> str:
    """Return a script that the tool's ``-restore --counters``, or ``nft -f``, loads."""
    chance = random.Random(f"{tool} {seed}")  # noqa: S311
    if tool == "nft":
        return "".join(_nft_tables(chance))
    return "".join(_iptables_lines(chance, six=tool.startswith("ip6")))


def _address(chance: random.Random, *, six: bool) -> str:
    low = chance.randrange(1, 6)
    return f"fd00:{low}::/64" if six else f"10.{low}.0.0/{chance.choice((8, 16, 24, 32))}"


def _comment(chance: random.Random) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randrange(1, 5)))


def _iptables_lines(chance: random.Random, *, six: bool) -> Iterator[str]:
    own = [f"CHAIN-{number}" for number in range(chance.randrange(3))]
    yield "*filter\n:FORWARD ACCEPT [0:0]\n[1:2] -A FORWARD -m comment --comment filter -j ACCEPT\nCOMMIT\n"
    yield "*nat\n"
    for chain in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"):
        yield f":{chain} ACCEPT [0:0]\n"
    for chain in own:
        yield f":{chain} - [0:0]\n"
    for chain in own:
        yield f"[0:0] -A POSTROUTING -j {chain}\n"
    seen: list[str] = []
    for _ in range(chance.randrange(1, 14)):
        chain = chance.choice(["POSTROUTING", *own])
        body = chance.choice(seen) if seen and chance.random() < 0.2 else _iptables_rule(chance, six=six)
        seen.append(body)
        yield f"[{chance.randrange(99)}:{chance.randrange(9999)}] -A {chain}{body}\n"
    yield "COMMIT\n"


def _iptables_rule(chance: random.Random, *, six: bool) -> str:
    words = [""]
    if chance.random() < 0.7:
        words.append(f"{chance.choice(('', '! '))}-s {_address(chance, six=six)}")
    if chance.random() < 0.4:
        words.append(f"{chance.choice(('', '! '))}-o eth{chance.randrange(3)}")
    protocol = chance.choice(("", "", "-p tcp", "-p udp", "! -p tcp"))
    words.append(protocol)
    if protocol == "-p tcp" and chance.random() < 0.6:
        words.append(
            chance.choice(("-m tcp --dport 80", "-m multiport --dports 80,443", "-m tcp --sport 1:9"))
        )
    if chance.random() < 0.3:
        comment = _comment(chance).replace("\\", "\\\\").replace('"', '\\"')
        words.append(f'-m comment --comment "{comment}"')
    if chance.random() < 0.2:
        words.append(
            chance.choice(
                (
                    "-m mark --mark 0x1/0x1",
                    "-m statistic --mode random --probability 0.5",
                    "-m limit --limit 5/sec",
                    "-m recent --set --name seen --rsource",
                    '-m string --algo bm --string "-j MASQUERADE"',
                    "-m conntrack --ctstate NEW",
                    "-m addrtype --src-type LOCAL",
                )
            )
        )
    ports = chance.choice(("", "", ":1024-40000")) if protocol in ("-p tcp", "-p udp") else ""
    flags = chance.choice(("", "", "", " --random-fully", " --random"))
    address = ("[fd00::1]" if ports else "fd00::1") if six else "192.0.2.1"
    target = chance.choice(
        (
            f"-j MASQUERADE{ports.replace(':', ' --to-ports ')}{flags}",
            f"-j SNAT --to-source {address}{ports}{flags}{chance.choice(('', ' --persistent'))}",
            "-j ACCEPT",
            "-j RETURN",
        )
    )
    return " ".join(word for word in (*words, target) if word or word is words[0])


def _nft_tables(chance: random.Random) -> Iterator[str]:
    for family in chance.sample(("ip", "ip6", "inet"), chance.randrange(1, 4)):
        table = f"t{chance.randrange(9)}"
        own = [f"own-{number}" for number in range(chance.randrange(3))]
        yield f"table {family} {table} {{\n"
        if family != "ip6":
            yield " set nets { type ipv4_addr; flags interval; elements = { 10.7.0.0/16, 10.9.0.0/24 } }\n"
        for chain in own:
            yield f" chain {chain} {{\n"
            yield from _nft_rules(chance, family)
            yield " }\n"
        yield " chain post {\n  type nat hook postrouting priority srcnat; policy accept;\n"
        for chain in own:
            yield f"  jump {chain}\n"
        yield from _nft_rules(chance, family)
        yield " }\n}\n"


def _nft_rules(chance: random.Random, family: str) -> Iterator[str]:
    seen: list[str] = []
    for _ in range(chance.randrange(1, 8)):
        rule = chance.choice(seen) if seen and chance.random() < 0.2 else _nft_rule(chance, family)
        seen.append(rule)
        yield f"  {rule}\n"


def _nft_rule(chance: random.Random, family: str) -> str:
    six = family == "ip6"
    kind = "ip6" if six else "ip"
    words = []
    if chance.random() < 0.7:
        many = "{ fd01::1, fd02::2 }" if six else "{ 10.1.0.0/16, 10.3.0.0/16, 10.5.1.1 }"
        choices = [_address(chance, six=six), f"!= {_address(chance, six=six)}", many]
        choices += [] if six else ["@nets"]
        words.append(f"{kind} saddr {chance.choice(choices)}")
    if chance.random() < 0.4:
        words.append(chance.choice(('oifname "eth1"', 'oifname { "eth1", "eth2" }', 'oifname != "eth3"')))
    if chance.random() < 0.3:
        words.append(chance.choice(("tcp dport 80", "udp dport { 53, 5353 }", "meta l4proto tcp")))
    if chance.random() < 0.5:
        words.append(
            chance.choice(
                (
                    f"counter packets {chance.randrange(99)} bytes {chance.randrange(9999)}",
                    "limit rate 10/second",
                    "ct state new",
                    'log prefix "masquerade "',
                    "meta mark 0x00000001",
                )
            )
        )
    flags = chance.choice(("", "", " random", " fully-random", " persistent"))
    address = "fd00::1" if six else "192.0.2.1"
    snat = f"snat {'ip ' if family == 'inet' else ''}to {address}{flags}"
    words.append(chance.choice((f"masquerade{flags}", f"masquerade{flags}", snat, "accept", "return")))
    if chance.random() < 0.3:
        comment = _comment(chance).replace('"', "").replace("\\", "")
        words.append(f'comment "{comment}"')
    return " ".join(words)
