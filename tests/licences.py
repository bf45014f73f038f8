#!/usr/bin/env python3
"""Checks every dependency's licence against the allow list of deny.toml, from `cargo metadata` on stdin."""
import json
import pathlib
import re
import sys
import tomllib

root = pathlib.Path(__file__).resolve().parent.parent
deny = tomllib.loads((root / "deny.toml").read_text())["licenses"]
allowed = set(deny["allow"])
exceptions = {e["crate"]: set(e["allow"]) for e in deny.get("exceptions", [])}
assert allowed, "deny.toml: no allow list found"


def satisfied(expression, more=frozenset()):
    """SPDX: OR binds weaker than AND, AND weaker than WITH. The old `/` means OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        good = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            good = all_of() or good  # both sides must be read
        return good

    def all_of():
        good = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            good = one() and good
        return good

    def one():
        token = tokens.pop(0)
        if token == "(":
            good = alternatives()
            assert tokens.pop(0) == ")", expression
            return good
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in allowed or token in more

    good = alternatives()
    assert not tokens, expression
    return good


# The checker itself can fail:
assert satisfied("MIT OR GPL-3.0") and satisfied("(MIT OR X) AND Apache-2.0") and satisfied("MIT/X")
assert not satisfied("GPL-3.0") and not satisfied("MIT AND GPL-3.0") and not satisfied("Apache-2.0 WITH X")

packages = json.load(sys.stdin)["packages"]
bad = [f'{p["name"]} {p["version"]}: {p["license"]}' for p in packages
       if not (p["license"] and satisfied(p["license"], exceptions.get(p["name"], set())))]
foreign = [f'{p["name"]} {p["version"]}: from {p["source"]}' for p in packages
           if p["source"] and not p["source"].startswith("registry+https://github.com/rust-lang/crates.io-index")]
for line in bad + foreign:
    print("not allowed:", line)
print(f"licences: {len(packages)} packages, {len(bad) + len(foreign)} not allowed")
sys.exit(1 if bad or foreign or not packages else 0)
