"""Models and policies of the families that Casbin's documentation shows, and the values that questions are made of."""

from dataclasses import dataclass

ALLOW = "some(where (p.eft == allow))"
BOTH = f"{ALLOW} && !some(where (p.eft == deny))"


@dataclass(frozen=True)
class Family:
    model: str
    policy: str
    values: tuple[tuple[str, ...], ...]


def model(
    matcher: str, *, request: str = "sub, obj, act", policy: str = "sub, obj, act", effect: str = ALLOW, roles: str = ""
) -> str:
    g = f"[role_definition]\n{roles}\n" if roles else ""
    return (
        f"[request_definition]\nr = {request}\n[policy_definition]\np = {policy}\n{g}"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


EQUAL = "r.sub == p.sub && r.obj == p.obj && r.act == p.act"
PEOPLE = ("alice", "bob", "cathy", "nobody")
DATA = ("data1", "data2", "data3")
ACTS = ("read", "write", "delete")
BASIC = "p, alice, data1, read\np, bob, data2, write\n"
RBAC = f"{BASIC}p, data2_admin, data2, read\np, data2_admin, data2, write\ng, alice, data2_admin\n"
ROLE = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
DOMAIN_ROWS = """p, admin, domain1, data1, read
p, admin, domain1, data1, write
p, admin, domain2, data2, read
p, admin, domain2, data2, write
g, alice, admin, domain1
g, bob, admin, domain2
"""
PATHS = ("/alice_data/resource1", "/alice_data/resource2/using/res_id", "/bob_data/resource1", "/cathy_data", "/other")

FAMILIES = {
    "basic": Family(model(EQUAL), BASIC, (PEOPLE, DATA, ACTS)),
    "root": Family(model(f"{EQUAL} || r.sub == 'root'"), BASIC, ((*PEOPLE, "root"), DATA, ACTS)),
    "without users": Family(
        model("r.obj == p.obj && r.act == p.act", request="obj, act", policy="obj, act"),
        "p, data1, read\np, data2, write\n",
        (DATA, ACTS),
    ),
    "without resources": Family(
        model("r.sub == p.sub && r.act == p.act", request="sub, act", policy="sub, act"),
        "p, alice, read\np, bob, write\n",
        (PEOPLE, ACTS),
    ),
    "roles": Family(model(ROLE, roles="g = _, _"), RBAC, (PEOPLE, DATA, ACTS)),
    "role hierarchy": Family(
        model(ROLE, roles="g = _, _"),
        f"{RBAC}p, root, data3, delete\np, data1_admin, data1, delete\n"
        "g, cathy, root\ng, root, data1_admin\ng, root, data2_admin\n",
        (PEOPLE, DATA, ACTS),
    ),
    "resource roles": Family(
        model("g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act", roles="g = _, _\ng2 = _, _"),
        "p, alice, data1, read\np, bob, data2, write\np, data_group_admin, data_group, write\n"
        "g, alice, data_group_admin\ng2, data1, data_group\ng2, data2, data_group\n",
        (PEOPLE, DATA, ACTS),
    ),
    "deny": Family(
        model(ROLE, roles="g = _, _", policy="sub, obj, act, eft", effect=BOTH),
        "p, alice, data1, read, allow\np, bob, data2, write, allow\np, data2_admin, data2, read, allow\n"
        "p, data2_admin, data2, write, allow\np, alice, data2, write, deny\ng, alice, data2_admin\n",
        (PEOPLE, DATA, ACTS),
    ),
    "domains": Family(
        model(
            "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act",
            request="sub, dom, obj, act",
            policy="sub, dom, obj, act",
            roles="g = _, _, _",
        ),
        DOMAIN_ROWS,
        (PEOPLE, ("domain1", "domain2", "domain3"), DATA, ACTS),
    ),
    "keyMatch": Family(
        model("r.sub == p.sub && keyMatch(r.obj, p.obj) && regexMatch(r.act, p.act)"),
        "p, alice, /alice_data/*, ^(GET)$\np, alice, /alice_data/resource1, ^POST$\n"
        "p, bob, /alice_data/resource2, ^GET$\np, bob, /bob_data/*, ^POST$\np, cathy, /cathy_data, ^(GET|POST)$\n",
        (PEOPLE, PATHS, ("GET", "POST", "DELETE")),
    ),
    "keyMatch2": Family(
        model("r.sub == p.sub && keyMatch2(r.obj, p.obj) && regexMatch(r.act, p.act)"),
        "p, alice, /alice_data/:resource, ^GET$\np, alice, /alice_data/resource2/using/:resId, ^GET$\n",
        (PEOPLE, PATHS, ("GET", "POST")),
    ),
    "ipMatch": Family(
        model("ipMatch(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"),
        "p, 192.168.2.0/24, data1, read\np, 10.0.0.0/16, data2, write\n",
        (("192.168.2.123", "192.168.0.123", "10.0.0.5", "10.1.0.5"), DATA, ACTS),
    ),
    "in": Family(model("r.sub == p.sub && r.obj in ('data1', 'data2') && r.act == p.act"), BASIC, (PEOPLE, DATA, ACTS)),
    "explicit priority": Family(
        model(
            ROLE,
            roles="g = _, _",
            policy="priority, sub, obj, act, eft",
            effect="priority(p.eft) || deny",
        ),
        "p, 10, data1_deny_group, data1, read, deny\np, 10, data1_deny_group, data1, write, deny\n"
        "p, 20, data2_allow_group, data2, read, allow\np, 20, data2_allow_group, data2, write, allow\n"
        "p, 1, alice, data1, write, allow\np, 1, alice, data1, read, allow\np, 1, bob, data2, read, deny\n"
        "g, bob, data2_allow_group\ng, alice, data1_deny_group\n",
        (PEOPLE, DATA, ACTS),
    ),
    "subject priority": Family(
        model(
            ROLE,
            roles="g = _, _",
            policy="sub, obj, act, eft",
            effect="subjectPriority(p.eft) || deny",
        ),
        "p, root, data1, read, deny\np, admin, data1, read, deny\np, editor, data1, read, deny\n"
        "p, subscriber, data1, read, deny\np, jane, data1, read, allow\np, alice, data1, read, allow\n"
        "g, admin, root\ng, editor, admin\ng, subscriber, admin\ng, jane, editor\ng, alice, subscriber\n",
        (("jane", "alice", "nobody"), DATA, ACTS),
    ),
    "eval": Family(
        model("eval(p.rule) && r.obj == p.obj && r.act == p.act", policy="rule, obj, act"),
        "p, r.sub == 'alice', data1, read\np, r.sub != 'alice' && r.sub != 'nobody', data2, write\n",
        (PEOPLE, DATA, ACTS),
    ),
}
