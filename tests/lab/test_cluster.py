"""Images that K3s needs and pods that cannot start: refused before K3s is installed, and told by verify afterwards.

The stand-in's pods are as far as their images let them be; a real K3s runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.images import NGINX
from tests.lab.life import NOBODY_HAS, Life, add_pod, appliance, begun, remove_pod
from tests.lab.scenario import PAUSE
from tests.lab.story import must_pull

# The site's life has the short form of it in every run.
pytestmark = [pytest.mark.lab, pytest.mark.whole, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with begun(tmp_path_factory.mktemp("cluster"), "cluster", nodes=("a", "b"), seeds=("a",)) as life:
        life.plug("a", NGINX)
        yield life


def test_a_k3s_without_its_images_is_refused_and_nothing_is_changed(life: Life) -> None:
    luggage = life.luggage
    life.luggage = replace(luggage, airgap_images=())
    refused = life.start("site.yml", expect=None)
    life.luggage = luggage
    assert refused.code not in (0, None) and refused.changed == 0, refused.output[-4000:]
    assert "APL-0839" in refused.output and f"{PAUSE} (for every pod, on a, b)" in refused.output, refused.output[
        -4000:
    ]
    assert not life["a"].run("ls /usr/local/bin/k3s", check=False).stdout


def test_the_archive_of_k3s_is_served_like_the_images_of_the_site(life: Life) -> None:
    done = life.run("site.yml")
    assert f"add   {PAUSE}" in done.output, done.output[-6000:]
    for host in life.up:
        assert PAUSE in [row["name"] for row in appliance(host, "images")["images"]]
    # An image that a garbage collection, or a mistake, takes out of containerd comes back from the mirror.
    must_pull(life["b"], PAUSE, real=life.luggage.real)
    again = life.run("site.yml")
    assert again.changed == 0, again.output[-6000:]


def test_pods_that_start_are_counted(life: Life) -> None:
    add_pod(life["a"], "good", NGINX.name)
    said = life.run("playbooks/verify.yml").output
    assert "1/1" in said and "Layers hashed: " in said, said[-6000:]


def test_a_pod_whose_image_nobody_has_ends_verify_in_red(life: Life) -> None:
    add_pod(life["a"], "bad", NOBODY_HAS)
    life.variables["verify_pods_timeout"] = 20
    done = life.start("playbooks/verify.yml", expect=None)
    assert done.code not in (0, None)
    said = " ".join(done.output.split())
    assert re.search(r"APL-0912: the pod default/bad does not start \[a\]: (ImagePullBackOff|ErrImagePull)", said), (
        said[-6000:]
    )
    assert f"APL-0913: nobody at this site has the image {NOBODY_HAS}" in said
    assert "wanted by pod default/bad" in said and "default/good does not start" not in said
    remove_pod(life["a"], "bad", life.luggage.real)


def test_a_pause_image_that_is_gone_is_named(life: Life) -> None:
    """K3s is told of another pause image than the one that was brought, as an upgrade with the old archive would."""
    other = "docker.io/rancher/mirrored-pause:9.9"
    life.variables |= {"k3s_config": {"pause-image": other}, "k3s_missing_images": "warn"}
    warned = life.start("site.yml", expect=None)
    said = " ".join(warned.output.split())
    assert f"{other} (for every pod, on a, b; there is {PAUSE})" in said, warned.output[-6000:]
    add_pod(life["a"], "late", NGINX.name)
    done = life.start("playbooks/verify.yml", expect=None)
    said = " ".join(done.output.split())
    assert done.code not in (0, None)
    assert "the pod default/late does not start [a]: ContainerCreating: FailedCreatePodSandBox" in said, said[-6000:]
    # A real containerd has words of its own for it.
    assert life.luggage.real or f'failed to get sandbox image "{other}"' in said
    assert f"APL-0913: nobody at this site has the image {other}" in said and "wanted by every pod" in said
