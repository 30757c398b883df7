"""The packages in the program as a CycloneDX list, on stdout.

    python3 scripts/sbom.py > wsd.cdx.json      # from Cargo.lock, by `cargo metadata`; no network
"""

import json
import subprocess
import sys

ROOT = "wsd"


def main():
    host = subprocess.run(["rustc", "--version", "--verbose"], check=True, capture_output=True, text=True).stdout
    host = next(line.split(": ")[1] for line in host.splitlines() if line.startswith("host: "))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]
    data = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = next(id for id, package in packages.items() if package["name"] == ROOT and package["source"] is None)
    linked = {id: [d["pkg"] for d in nodes[id]["deps"] if any(k["kind"] != "dev" for k in d["dep_kinds"])] for id in nodes}
    seen, queue = {root}, [root]
    while queue:
        for dependency in linked[queue.pop()]:
            if dependency not in seen:
                seen.add(dependency)
                queue.append(dependency)

    def purl(id):
        return f"pkg:cargo/{packages[id]['name']}@{packages[id]['version']}"

    def component(id):
        package = packages[id]
        entry = {"type": "library", "bom-ref": purl(id), "name": package["name"], "version": package["version"],
                 "purl": purl(id)}
        if package["license"]:
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        return entry

    parts = sorted(seen - {root}, key=purl)
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
           "metadata": {"component": {**component(root), "type": "application"}},
           "components": [component(id) for id in parts],
           "dependencies": [{"ref": purl(id), "dependsOn": sorted({purl(d) for d in linked[id] if d in seen})}
                            for id in sorted(seen, key=purl)]}
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
