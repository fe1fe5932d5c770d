"""To how many servers the rules of real hosts, and of made ones, send the DNS queries of one socket."""

import pytest

from snat_race.kernel import host, netns_lookup, tools
from snat_race.results import kernels
from snat_race.results.findings import Check
from snat_race.rules.dns_servers import dns_servers
from snat_race.rules.iptables_save import IptablesSave
from snat_race.rules.nft_list import NftList
from snat_race.runs import doctor
from snat_race.runs.nat_properties import nat_of, rules_for
from tests.conftest import IPTABLES, PRIVATE, ROOT, in_sandbox

KUBE_DNS = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SEP-T - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-DNS - [0:0]
:KUBE-SVC-TCP - [0:0]
:KUBE-SVC-WEB - [0:0]
[0:0] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[0:0] -A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns" \
-m udp --dport 53 -j KUBE-SVC-DNS
[0:0] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j KUBE-SVC-TCP
[0:0] -A KUBE-SERVICES -d 10.96.7.53/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB
[0:0] -A KUBE-SVC-DNS ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
[0:0] -A KUBE-SVC-DNS -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A
[0:0] -A KUBE-SVC-DNS -j KUBE-SEP-B
[0:0] -A KUBE-SVC-TCP -j KUBE-SEP-T
[0:0] -A KUBE-SEP-A -s 10.244.0.2/32 -j KUBE-MARK-MASQ
[0:0] -A KUBE-SEP-A -p udp -m udp -j DNAT --to-destination 10.244.0.2:53
[0:0] -A KUBE-SEP-B -s 10.244.0.3/32 -j KUBE-MARK-MASQ
[0:0] -A KUBE-SEP-B -p udp -m udp -j DNAT --to-destination 10.244.0.3:53
[0:0] -A KUBE-SEP-T -p tcp -m tcp -j DNAT --to-destination 10.244.0.4:53
COMMIT
"""
SERVICE = "-A KUBE-SVC-DNS -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A"


def of_iptables(*rules: str) -> int:
    text = "*nat\n:PREROUTING ACCEPT [0:0]\n" + "".join(f"[0:0] -A PREROUTING {rule}\n" for rule in rules)
    return dns_servers(IptablesSave("iptables", f"{text}COMMIT\n").texts)


def of_nft(*rules: str) -> int:
    lines = "".join(f"\t\t{rule} # handle {number}\n" for number, rule in enumerate(rules, 2))
    text = f"table inet nat {{ # handle 1\n\tchain pre {{ # handle 1\n{lines}\t}}\n}}\n"
    return dns_servers(NftList("nft", text).texts)


@pytest.mark.parametrize("name", ["kubernetes.rules", "kubernetes-old.rules"])
def test_kube_proxy_of_a_cluster_with_one_server_of_dns(name: str) -> None:
    lines = (ROOT / "tests/rulesets" / name).read_text().splitlines()
    text = "\n".join(f"[0:0] {line}" if line.startswith("-A ") else line for line in lines)
    assert dns_servers(IptablesSave("iptables", f"{text}\n").texts) == 1


def test_a_service_of_kube_proxy_has_as_many_servers_as_endpoints_of_udp() -> None:
    assert dns_servers(IptablesSave("iptables-nft", KUBE_DNS).texts) == 2
    one = "".join(line for line in KUBE_DNS.splitlines(keepends=True) if SERVICE not in line)
    assert dns_servers(IptablesSave("iptables-nft", one).texts) == 1


TO_ONE = "-d 10.96.0.10/32 -p udp -m udp --dport 53"
DNS = "-p udp -m udp --dport 53"


@pytest.mark.parametrize(
    ("rules", "servers"),
    [
        ([f"{DNS} -j DNAT --to-destination 10.0.0.2"], 1),
        ([f"{DNS} -j DNAT --to-destination 10.0.0.2:5353"], 1),
        ([f"{DNS} -j DNAT --to-destination 10.0.0.2-10.0.0.9"], 2),
        (["-p udp -m multiport --dports 53,5353 -j DNAT --to-destination 10.0.0.2-10.0.0.9"], 2),
        (
            [
                f"{TO_ONE} -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.0.0.2",
                f"{TO_ONE} -j DNAT --to-destination 10.0.0.3",
            ],
            2,
        ),
        (  # two services, each with one server
            [
                f"{TO_ONE} -j DNAT --to-destination 10.0.0.2",
                f"-d 10.96.0.11/32 {DNS} -j DNAT --to-destination 10.0.0.3",
            ],
            1,
        ),
        ([f"-d fd00::a/128 {DNS} -j DNAT --to-destination [fd00::2]-[fd00::3]:53"], 2),
        ([f"-d 127.0.0.11/32 {DNS} -j DNAT --to-destination 127.0.0.11:33445"], 1),
        ([f"{DNS} -j REDIRECT --to-ports 5353"], 0),
        ([f"{DNS} -j ACCEPT"], 0),
        (["-p tcp -m tcp --dport 53 -j DNAT --to-destination 10.0.0.2-10.0.0.9"], 0),
        (["-p udp -m udp --dport 5353 -j DNAT --to-destination 10.0.0.2-10.0.0.9"], 0),
        (["-p udp -m udp --sport 53 -j DNAT --to-destination 10.0.0.2-10.0.0.9"], 0),
        ([], 0),
    ],
)
def test_rules_of_iptables(rules: list[str], servers: int) -> None:
    assert of_iptables(*rules) == servers


@pytest.mark.parametrize(
    ("rules", "servers"),
    [
        (["udp dport 53 dnat ip to 10.0.0.2"], 1),
        (["udp dport domain dnat to 10.0.0.2:53"], 1),
        (["udp dport { 53, 5353 } dnat ip to numgen random mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }"], 2),
        (["udp dport { 853, 53 } dnat ip to 10.0.0.2-10.0.0.5"], 2),
        (["meta l4proto udp th dport 53 counter packets 0 bytes 0 dnat ip6 to fd00::2-fd00::3"], 2),
        (["meta l4proto { tcp, udp } th dport 53 dnat ip to 10.0.0.2"], 1),
        (["tcp dport 53 dnat ip to 10.0.0.2-10.0.0.5", "udp dport 530 dnat ip to 10.0.0.2-10.0.0.5"], 0),
        (["udp dport 53 accept", 'ip daddr 10.0.0.53 comment "domain" dnat ip to 10.0.0.2-10.0.0.5'], 0),
    ],
)
def test_rules_of_nft(rules: list[str], servers: int) -> None:
    assert of_nft(*rules) == servers


@pytest.mark.parametrize(
    ("release", "none", "one", "several"),
    [
        ("3.10.0-1160.el7.x86_64", True, True, True),
        ("4.6.7", True, True, True),
        ("4.7", False, True, True),
        ("4.18.20", False, True, True),
        ("4.19.0-27-amd64", False, False, True),
        ("5.5.19", False, False, True),
        ("5.6.0", False, False, False),
        ("6.18.44", False, False, False),
        ("", False, False, False),
    ],
)
def test_which_kernels_lose_which_queries(release: str, none: bool, one: bool, several: bool) -> None:
    version = kernels.version_of(release)
    loses = [kernels.udp_clash_loses(version, servers=servers) for servers in (0, 1, 2, 9)]
    assert loses == [none, one, several, several]


@PRIVATE
@IPTABLES
@pytest.mark.parametrize(
    ("release", "warned", "clashes"), [("5.3.18", True, True), ("5.6.0", False, False)]
)
def test_what_the_rules_of_a_host_say_reaches_the_diagnosis(
    release: str, warned: bool, clashes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "release", lambda: release)

    def look() -> None:
        here = netns_lookup.here()
        done = tools.run(here, ["iptables-restore"], KUBE_DNS)
        assert not done.returncode, done.stderr
        checks = {finding.check for finding in doctor.examine(here, 0).findings}
        assert (Check.dns_clashes in checks) == warned
        assert nat_of(rules_for([here]), 0).udp_clashes == clashes

    in_sandbox(look)
