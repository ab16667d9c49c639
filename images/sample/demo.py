"""make demo: bake a worker and a master, look at them, and boot them until the worker has joined."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CLI = Path(sys.executable).with_name("k3s-bake")
_PATIENCE = 900
"""Seconds: several times what it takes on two slow cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="download Raspbian and K3s instead")
    parser.add_argument("--no-boot", action="store_true", help="end before the images are booted")
    options = parser.parse_args()
    real = options.real
    folder = ROOT / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [] if real else sample_parts()
    images = [bake(role, parts, folder) for role in ("worker", "master")]
    for image in images:
        say(f"Is {image.name} a node?")
        run("inspect", image)
    say("Two images:")
    for image in images:
        print(f"  {image.relative_to(ROOT)}")
    if real:
        print("Write them with: k3s-bake flash IMAGE /dev/sdX")
    else:
        print("No Raspberry Pi boots the sample base. With Raspbian and K3s themselves: make demo REAL=1")
    if not options.no_boot:
        boot(images[::-1])


def boot(images: list[Path]) -> None:
    say(
        "Power on, in QEMU: a master and a worker on one link, from copies of these images. The worker is\n"
        "to find the master, to fetch a token and to join. That takes some two minutes under emulation;\n"
        "what is waited for is told as it comes. (make demo BOOT=0 leaves this out.)"
    )
    run("boot", *images, "--until", "joined", "--timeout", _PATIENCE)


def sample_parts() -> list[str]:
    """Options for the base and the K3s that need no download from Raspberry Pi or from K3s."""
    say(
        "The base is a sample made of Debian packages in the shape of Raspbian, and K3s is a stand-in that\n"
        "runs no containers. Making the sample takes some five minutes the first time."
    )
    build = subprocess.run(
        [sys.executable, str(ROOT / "images/sample/build.py")], stdout=subprocess.PIPE, text=True, check=False
    )
    if build.returncode:
        sys.exit(build.returncode)  # it has said why
    k3s = ROOT / "tests" / "fakes" / "k3s"
    return ["--base", build.stdout.strip(), "--k3s", str(k3s), "--k3s-version", "v1.34.9+k3s1"]


def bake(role: str, parts: list[str], folder: Path) -> Path:
    image = folder / f"demo-{role}.img"
    say(f"Baking a {role}:")
    run("image", "--role", role, "--cluster", "demo", *parts, "--output", image, "--force")
    return image


def run(*arguments: object) -> None:
    done = subprocess.run([str(CLI), *map(str, arguments)], env=dict(os.environ), check=False)
    if done.returncode:
        sys.exit(done.returncode)


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
