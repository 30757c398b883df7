"""An OCI image of one static program, as an archive that `docker load`, `podman load` and `skopeo` read.

    python3 scripts/oci_image.py target/x86_64-unknown-linux-musl/release/wsd wsd-oci.tar 0.1.0

The image has the program and the certificates of this machine, which downloads from the hub need. It serves on
port 8080 by default: WSD_API_KEY must be set, and models are cached in the volume /models. The same program
gives the same bytes.
"""

import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
USER = 65532  # a number without a name or rights, as in other images without an operating system
MACHINES = {62: "amd64", 183: "arm64"}  # by the number in an ELF header
INTERPRETER = 3  # the type of an ELF segment that names a loader
MEDIA = "application/vnd.oci.image"


def add(archive, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def folder(archive, name, owner=0):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
    archive.addfile(entry)


def architecture(program):
    """The image's name of the machine that a static program of 64 bits runs on."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            sys.exit(f"{program} must be a Linux program of 64 bits")
        machine, = struct.unpack_from("<H", header, 18)
        start, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(start)
        segments = file.read(size * count)
    if any(struct.unpack_from("<I", segments, size * index) == (INTERPRETER,) for index in range(count)):
        sys.exit(f"{program} must be static: an image without an operating system has no loader\n"
                 "  hint: build it for a target such as x86_64-unknown-linux-musl")
    if machine not in MACHINES:
        sys.exit(f"{program} must be for one of {list(MACHINES.values())}, got machine {machine}")
    return MACHINES[machine]


def layer(program):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        folder(archive, "models", USER)
        add(archive, "wsd", open(program, "rb").read(), 0o755)
        if os.path.exists(CERTIFICATES):
            for path in ("etc", "etc/ssl", "etc/ssl/certs"):
                folder(archive, path)
            add(archive, CERTIFICATES[1:], open(CERTIFICATES, "rb").read())
    return tar.getvalue()


def main():
    program, out, version = sys.argv[1:]
    plain = layer(program)
    packed = gzip.compress(plain, mtime=0)
    blobs = {}

    def blob(media, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def document(media, value):
        return blob(media, json.dumps(value, sort_keys=True).encode())

    config = document(f"{MEDIA}.config.v1+json", {
        "architecture": architecture(program),
        "os": "linux",
        "config": {
            "Entrypoint": ["/wsd"],
            "Cmd": ["serve", "--host", "0.0.0.0", "--port", "8080"],
            "Env": [f"SSL_CERT_FILE={CERTIFICATES}", "HF_HOME=/models"],
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {"org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0"},
            "User": f"{USER}:{USER}",
            "Volumes": {"/models": {}},
            "WorkingDir": "/models",
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
    })
    manifest = document(f"{MEDIA}.manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": config,
        "layers": [blob(f"{MEDIA}.layer.v1.tar+gzip", packed)],
    })
    name = f"wsd:{version}"
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [manifest]}
    with tarfile.open(out, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(archive, "index.json", json.dumps(index, sort_keys=True).encode())
        for digest, data in sorted(blobs.items()):
            add(archive, "blobs/sha256/" + digest.removeprefix("sha256:"), data)


if __name__ == "__main__":
    main()
