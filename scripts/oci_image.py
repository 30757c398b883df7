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
import platform
import sys
import tarfile

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
USER = 65532  # a number without a name or rights, as in other images without an operating system
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA = "application/vnd.oci.image"


def add(archive, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def folder(archive, name, owner=0):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
    archive.addfile(entry)


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
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
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
    manifest["annotations"] = {"org.opencontainers.image.ref.name": f"wsd:{version}", "io.containerd.image.name": f"wsd:{version}"}
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [manifest]}
    with tarfile.open(out, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(archive, "index.json", json.dumps(index, sort_keys=True).encode())
        for digest, data in sorted(blobs.items()):
            add(archive, "blobs/sha256/" + digest.removeprefix("sha256:"), data)


if __name__ == "__main__":
    main()
