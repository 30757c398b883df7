#!/usr/bin/env python3
"""Checks the direction of imports between the modules of each crate.

Reads crates/*/src, follows `use` trees, inline `crate::` and `super::` paths and `pub use` re-exports
to the module that defines the name, and leaves out `#[cfg(test)]` items. A module that only calls
`child::name` is a list of its children: that is no import. Prints, for each crate, the imports that point
up in the declared order of layers and the groups of modules that import each other in a circle.
Fails on an upward import and on a circle that is not listed below.

    scripts/modules.py            the check
    scripts/modules.py --edges    every import as well
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The top-level modules of a crate, lowest first. A module imports from those before it only.
LAYERS = {
    "nn": [
        "error", "format", "activation", "matrix", "device", "kernels", "arch", "checkpoint", "adapter", "draft",
        "executor", "cache", "cpu", "cuda", "tensors", "load", "engine", "shapes", "measure",
    ],
}  # fmt: skip

# Circles that may stay, each with the reason. ARCHITECTURE.md lists the same ones.
ALLOWED = {
    ("lab", "world", "world::query", "world::query::phrasings"): "a world draws queries, and a query reads its world",
    ("lab", "world::attributes", "world::entity"): "an attribute names its kinds of thing, a thing its attributes",
}

STRIP = re.compile(
    r"""
    //[^\n]*                                   # line comment
    | /\*.*?\*/                                # block comment
    | b?r(?P<hash>\#*)".*?"(?P=hash)           # raw string
    | b?"(?:\\.|[^"\\])*"                      # string
    | b?'(?:\\(?:u\{[0-9a-fA-F]+\}|x..|.)|[^\\'])'  # character
    """,
    re.VERBOSE | re.DOTALL,
)
TEST = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]")
USE = re.compile(r"(?P<vis>pub(?:\s*\([^)]*\))?\s+)?\buse\s+(?P<tree>[^;]+);")
PATH = re.compile(r"(?<![\w:.])(\$?[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)+)")


def without_tests(source):
    """Returns the source without comments, strings and items under `#[cfg(test)]`."""
    source = STRIP.sub(" ", source)
    while found := TEST.search(source):
        end, depth = found.end(), 0
        while end < len(source):
            char = source[end]
            depth += (char in "{([") - (char in "})]")
            end += 1
            if depth == 0 and char in ";}":
                break
        source = source[: found.start()] + source[end:]
    return source


def leaves(tree, prefix=()):
    """Yields (path, alias) for each name of a use tree."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if brace:
        prefix += tuple(part.strip() for part in head.split("::") if part.strip())
        depth, start, inner = 0, 0, rest[: rest.rindex("}")]
        for at, char in enumerate(inner + ","):
            depth += (char == "{") - (char == "}")
            if char == "," and depth == 0:
                if inner[start:at].strip():
                    yield from leaves(inner[start:at], prefix)
                start = at + 1
        return
    name, _, alias = tree.partition(" as ")
    path = prefix + tuple(part.strip() for part in name.split("::") if part.strip())
    if path[-1] == "self":
        path = path[:-1]
    if path:
        yield path, alias.strip() or path[-1]


class Crate:
    """The modules of one crate, as tuples of names; the root is the empty tuple."""

    def __init__(self, folder):
        self.name, self.sources = folder.name, {}
        for file in sorted((folder / "src").rglob("*.rs")):
            parts = file.relative_to(folder / "src").with_suffix("").parts
            module = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            self.sources[module] = self.sources.get(module, "") + without_tests(file.read_text())
        self.drop_undeclared()
        self.uses = {module: list(self.read_uses(source)) for module, source in self.sources.items()}
        self.edges = {module: set() for module in self.sources}
        for module in self.sources:
            self.read_edges(module)

    def drop_undeclared(self):
        """Drops files that no module declares outside of tests, such as `tests.rs`."""
        for module in sorted(self.sources, key=len):
            parent = self.sources.get(module[:-1])
            declared = module and parent and re.search(rf"\bmod\s+{re.escape(module[-1])}\s*;", parent)
            if module and not declared:
                del self.sources[module]

    @staticmethod
    def read_uses(source):
        for use in USE.finditer(source):
            for path, alias in leaves(use["tree"]):
                yield bool(use["vis"]), path, alias

    def start(self, module, path):
        """Returns the absolute form of a path written in `module`, or None for another crate's."""
        here, rest = module, list(path)
        if rest[0] in ("crate", "$crate", self.name if self.name == "wsd" else ""):
            return tuple(rest[1:])
        if rest[0] in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                here = here[:-1] if rest.pop(0) == "super" else here
            return here + tuple(rest)
        return here + tuple(rest) if here + (rest[0],) in self.sources else None

    def definers(self, path, seen=frozenset()):
        """Returns the modules that define what an absolute path names, through re-exports."""
        if path in seen:
            return set()
        seen |= {path}
        module = path
        while module not in self.sources:
            module = module[:-1]
        rest = path[len(module) :]
        if not rest or rest[0] == "*":
            return {module}
        for is_public, used, alias in self.uses[module]:
            if alias == rest[0] and (target := self.start(module, used)) is not None:
                return self.definers(target + rest[1:], seen)
        for is_public, used, alias in self.uses[module]:
            if is_public and alias == "*" and (target := self.start(module, used)) is not None:
                if re.search(rf"\b{rest[0]}\b", self.sources.get(target[:-1], "")):
                    return self.definers(target[:-1] + rest, seen)
        return {module}

    def read_edges(self, module):
        """Records the modules that `module` needs. Naming a module alone is no need, nor is a re-export."""
        names = {}
        for is_public, path, alias in self.uses[module]:
            target = self.start(module, path)
            if target is None:
                continue
            if target in self.sources:
                names[alias] = target
            if not is_public and target not in self.sources:
                self.edges[module] |= self.definers(target)
        body = USE.sub(" ", self.sources[module])
        for found in PATH.finditer(body):
            path = tuple(part.strip() for part in found[1].split("::"))
            if path[0] in names:
                target = names[path[0]] + path[1:]
            elif path[0] in ("crate", "$crate", "super"):
                target = self.start(module, path)
            else:
                continue
            self.edges[module] |= self.definers(target)
        self.edges[module] -= {module, ()} if module else {()}

    def circles(self):
        """Returns the strongly connected groups of more than one module (Tarjan's algorithm)."""
        index, low, stack, groups = {}, {}, [], []

        def visit(module):
            index[module] = low[module] = len(index)
            stack.append(module)
            for other in sorted(self.edges[module]):
                if other not in index:
                    visit(other)
                    low[module] = min(low[module], low[other])
                elif other in stack:
                    low[module] = min(low[module], index[other])
            if low[module] == index[module]:
                at = stack.index(module)
                group = stack[at:]
                del stack[at:]
                if len(group) > 1:
                    groups.append(tuple(sorted("::".join(one) for one in group)))

        for module in sorted(self.sources):
            if module not in index:
                visit(module)
        return sorted(groups)

    def upward(self):
        """Yields the imports that point to a later layer, and the modules that have no layer."""
        order = {name: at for at, name in enumerate(LAYERS.get(self.name, []))}
        if not order:
            return
        for module, others in sorted(self.edges.items()):
            for other in sorted(others):
                if not module or not other or module[0] == other[0]:
                    continue
                if unknown := [name for name in (module[0], other[0]) if name not in order]:
                    yield f"{unknown[0]} is in no layer"
                elif order[other[0]] > order[module[0]]:
                    yield f"{'::'.join(module)} -> {'::'.join(other)}"


def main():
    sys.setrecursionlimit(10_000)
    faults, listed = 0, set()
    for folder in sorted((ROOT / "crates").iterdir()):
        if not (folder / "src").is_dir():
            continue
        crate = Crate(folder)
        print(f"{crate.name}: {len(crate.sources)} modules, {sum(map(len, crate.edges.values()))} imports")
        if "--edges" in sys.argv:
            for module, others in crate.edges.items():
                for other in sorted(others):
                    print(f"  {'::'.join(module) or 'lib'} -> {'::'.join(other)}")
        for fault in sorted(set(crate.upward())):
            print(f"  upward: {fault}")
            faults += 1
        for group in crate.circles():
            reason = ALLOWED.get((crate.name, *group))
            listed.add((crate.name, *group))
            print(f"  circle: {', '.join(group)}" + (f" (allowed: {reason})" if reason else ""))
            faults += reason is None
    for group in ALLOWED.keys() - listed:
        print(f"no longer a circle, remove it from the list: {', '.join(group)}")
        faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
