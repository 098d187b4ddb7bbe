# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine itself says, for the demo to hold the modules' reports against. It talks to docker-py only.

leftovers IMAGE… -- BUILDER…   which of these images, and of these builders' containers and volumes, are there
clean IMAGE… -- BUILDER…       remove what `leftovers` finds
container NAME                 what a container was made with
image NAME                     the id under a name
tag IMAGE NAME                 another name for an image
run IMAGE                      what a container of this image prints

The answer is JSON, but for `run`.
"""

from __future__ import annotations

import json
import sys

try:
    import docker
except ImportError as error:
    sys.exit(f"{error}: install the Python packages of requirements.txt for {sys.executable}")


def leftovers(client, *names):
    middle = names.index("--")
    nodes = [f"{builder}0" for builder in names[middle + 1 :]]
    # The second is what a re-creation sets aside while it is under way.
    containers = {f"buildx_{kind}_{node}" for node in nodes for kind in ("buildkit", "previous")}
    volumes = {f"buildx_buildkit_{node}_state" for node in nodes}
    tags = (tag for image in client.images.list() for tag in image.tags)
    return {
        "containers": sorted(
            containers.intersection(one.name for one in client.containers.list(all=True, ignore_removed=True))
        ),
        "volumes": sorted(volumes.intersection(one.name for one in client.volumes.list())),
        "images": sorted(set(names[:middle]).intersection(tags)),
    }


def clean(client, *names):
    found = leftovers(client, *names)
    for name in found["containers"]:
        client.api.remove_container(name, force=True, v=True)
    for name in found["volumes"]:
        client.api.remove_volume(name, force=True)
    for name in found["images"]:
        client.api.remove_image(name)
    return found


def container(client, name):
    found = client.api.inspect_container(name)
    image = client.api.inspect_image(found["Image"])
    return {
        "image": found["Config"]["Image"],
        "image_id": image["Id"],
        "command": found["Config"]["Cmd"],
        "env": dict(pair.split("=", 1) for pair in found["Config"]["Env"]),
        "memory": found["HostConfig"]["Memory"],
        "started": found["State"]["StartedAt"],
        "id": found["Id"],
    }


def image(client, name):
    return client.api.inspect_image(name)["Id"]


def tag(client, name, other):
    return client.images.get(name).tag(other)


def run(client, name):
    return client.containers.run(name, remove=True).decode()


COMMANDS = {function.__name__: function for function in (leftovers, clean, container, image, tag, run)}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    try:
        answer = COMMANDS[sys.argv[1]](docker.from_env(), *sys.argv[2:])
    except docker.errors.DockerException as error:
        sys.exit(f"the engine: {error}")
    print(answer if sys.argv[1] == "run" else json.dumps(answer))
