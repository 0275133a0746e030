"""The module that has kernel modules loaded now and at every boot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.site.appliance.plugins.modules import kernel_modules

TEXT = "# Written by the appliance (role host). Kernel modules that K3s needs.\nbr_netfilter\nvxlan\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    tree = tmp_path / "root/lib/modules" / os.uname().release
    tree.mkdir(parents=True)
    (tree / "modules.builtin").write_text("kernel/overlay.ko\n")
    (tree / "modules.dep").write_text("kernel/br_netfilter.ko:\nkernel/vxlan.ko:\n")
    (tmp_path / "root/sys/module/br_netfilter").mkdir(parents=True)
    return tmp_path


class Modprobe:
    """Stands for modprobe: notes what was loaded, and makes it look loaded."""

    def __init__(self, host: Path, code: int = 0) -> None:
        self.host, self.code, self.loaded = host, code, list[str]()

    def as_method(self) -> Any:
        def run_command(_module: AnsibleModule, argv: list[str]) -> tuple[int, str, str]:
            self.loaded.append(argv[1])
            (self.host / "root/sys/module" / argv[1]).mkdir(parents=True)
            return self.code, "", "modprobe: ERROR"

        return run_command


def _run(
    host: Path, capsys: pytest.CaptureFixture[str], check: bool = False, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    arguments = {
        "names": list(names or ("overlay", "br_netfilter")),
        "optional": ["vxlan", "iptable_nat"],
        "path": str(host / "appliance.conf"),
        "root": str(host / "root"),
        "_ansible_check_mode": check,
        "_ansible_remote_tmp": str(host),
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        kernel_modules.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_writes_and_loads_and_then_leaves_alone(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modprobe = Modprobe(host)
    monkeypatch.setattr(AnsibleModule, "run_command", modprobe.as_method())
    first = _run(host, capsys)
    assert first["changed"] is True
    assert first["states"] == {
        "overlay": "builtin",
        "br_netfilter": "loaded",
        "vxlan": "loadable",
        "iptable_nat": "missing",
    }
    # The one that is loaded by now is written too: it has to come back at boot. The built-in one has not.
    assert (host / "appliance.conf").read_text() == TEXT
    assert modprobe.loaded == ["vxlan"]
    assert _run(host, capsys)["changed"] is False
    assert modprobe.loaded == ["vxlan"]


def test_check_mode_shows_and_does_not(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modprobe = Modprobe(host)
    monkeypatch.setattr(AnsibleModule, "run_command", modprobe.as_method())
    result = _run(host, capsys, check=True)
    assert result["changed"] is True
    assert result["diff"]["after"] == TEXT
    assert not (host / "appliance.conf").exists()
    assert modprobe.loaded == []


def test_a_needed_module_that_is_nowhere_is_named(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = _run(host, capsys, check=True, names=("overlay", "nf_conntrack"))
    assert result["missing"] == ["nf_conntrack"]


def test_modprobe_that_fails_is_an_error(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modprobe = Modprobe(host, code=1)
    monkeypatch.setattr(AnsibleModule, "run_command", modprobe.as_method())
    result = _run(host, capsys, names=("vxlan",))
    assert result["failed"] is True
    assert result["msg"] == "modprobe failed: vxlan: modprobe: ERROR"
